"""The steps that run other commands: what they ask for, what they keep, and how they are ended."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from harness.measure import subprocesses
from harness.measure.steps import commands, sizing
from harness.measure.subprocesses import run_python
from harness.measure.tables import DRAWN
from tests.measure.jobs import make_job

SUMMARY = {
    "config": {
        "executor": {"dtype": "float32", "device": "cpu"},
        "model": {"name": "a model"},
        "num_requests": 2,
    },
    "rows": [
        {
            "allocator": name,
            "status": "ok",
            "reason": None,
            "output_digest": "sha256:1",
            "metrics": {"requests_per_s": 1.5, "steps": 7},
        }
        for name in ("paged", "virtual")
    ],
}


@pytest.fixture
def asked(monkeypatch):
    """Commands are noted and not run; the comparison's writes a summary."""
    found = []

    def run(arguments, limit_s, **options):
        found.append(arguments)
        directory = [a.partition("=")[2] for a in arguments if a.startswith("hydra.run.dir=")]
        for path in map(Path, directory):
            (path / "figures").mkdir(parents=True)
            (path / "summary.json").write_text(json.dumps(SUMMARY))
            (path / "timeline.parquet").write_bytes(b"0" * (commands.KEPT_BYTES + 1))
            (path / "requests.parquet").write_bytes(b"0")
        return {
            "command": " ".join(arguments), "exit_status": 0, "timed_out": False,
            "seconds": 1.0, "output": "fine",
        }  # fmt: skip

    monkeypatch.setattr(subprocesses, "run_python", run)
    return found


def test_on_a_gpu_it_is_the_comparison_that_was_asked_for(tmp_path, asked):
    made = make_job("comparison", tmp_path, "cuda", requests=123)
    commands.comparison(made)
    assert asked[0][:2] == ["-m", "harness"]
    assert set(asked[0]) >= {
        "+workload=sharegpt", "model=opt-13b", "kv_memory_gib=12", "executor=model",
        "executor.device=cuda", "executor.max_requests=123",
    }  # fmt: skip
    assert made.results["same_outputs"]
    assert [row["requests_per_s"] for row in made.results["rows"]] == [1.5, 1.5]
    assert str(tmp_path) not in made.results["run"]["command"]
    kept = sorted(path.name for path in (tmp_path / "comparison").iterdir())
    assert kept == ["requests.parquet", "summary.json"]
    shown = " ".join("\n".join(DRAWN["comparison"](made.results)).split())
    assert "| paged | ok |" in shown


def test_a_trial_that_fails_costs_only_the_choice_of_a_number(tmp_path, asked, monkeypatch):
    def fails(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(sizing, "fitting_requests", fails)
    made = make_job("comparison", tmp_path, "cuda")
    commands.comparison(made)
    assert f"executor.max_requests={commands.FALLBACK_REQUESTS}" in asked[0]
    assert made.results["sizing"]["reason"] == "no trial: MemoryError: no room"


def test_it_may_be_repeated_in_the_same_directory(tmp_path, asked):
    for _ in range(2):
        commands.beam(make_job("beam", tmp_path, quick=True))
    assert "+workload=beam" in asked[1]


def test_a_row_with_an_error_fails_the_step_and_is_kept(tmp_path, asked, monkeypatch):
    monkeypatch.setitem(SUMMARY["rows"][1], "status", "error")
    monkeypatch.setitem(SUMMARY["rows"][1], "reason", "it broke")
    made = make_job("comparison", tmp_path)
    with pytest.raises(RuntimeError, match="virtual: it broke"):
        commands.comparison(made)
    assert len(made.results["rows"]) == 2


def test_a_comparison_that_wrote_nothing_says_why(tmp_path, monkeypatch):
    done = {"command": "c", "exit_status": 2, "timed_out": False, "output": "error: too large\n"}
    monkeypatch.setattr(subprocesses, "run_python", lambda *_: done)
    with pytest.raises(RuntimeError, match="wrote nothing: error: too large"):
        commands.comparison(make_job("comparison", tmp_path))


def test_calibration_is_that_of_the_model_compared(tmp_path, asked):
    commands.calibrate(make_job("calibrate", tmp_path, "cuda"))
    assert "model=opt-13b" in asked[0]
    assert "device=cuda" in asked[0]


@pytest.mark.parametrize("here", [signal.default_int_handler, signal.SIG_IGN], ids=["", "nohup"])
def test_a_command_that_takes_too_long_is_interrupted_and_may_write(here):
    """Regression: started from a shell's background job it was killed instead."""
    script = (
        "import time\n"
        "try:\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('written')\n"
    )
    before = signal.signal(signal.SIGINT, here)
    try:
        found = run_python(["-c", script], 6.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found["timed_out"]
    assert found["output"].split() == ["begun", "written"]


def test_a_command_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr("harness.measure.subprocesses.LEAST_GRACE_S", 1.0)
    script = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert run_python(["-c", script], 2.0)["timed_out"]


def test_what_a_command_leaves_running_is_not_waited_for():
    script = (
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)\n"
    )
    found = run_python(["-c", script], 50.0)
    os.kill(int(found["output"]), signal.SIGKILL)
    assert not found["timed_out"]


def test_the_status_and_the_output_of_a_command_are_kept():
    found = run_python(["-c", "import sys; print('a line'); sys.exit(3)"], 20.0)
    assert found["exit_status"] == 3
    assert found["output"] == "a line\n"
    assert not found["timed_out"]
    assert sys.executable not in found["command"]
