"""Each step in a process of its own: a fault or a hang costs that step alone."""

import json

import pytest

from harness.measure import runner
from harness.measure.__main__ import main
from tests.measure.jobs import records


def test_a_step_in_a_process_of_its_own(tmp_path):
    out = tmp_path / "records"
    given = ["device=cpu", "quick=true", "only=environment,vmm", "isolate=true", f"out={out}"]
    assert main(given) == 0
    found = records(out)
    assert {step: record["status"] for step, record in found.items()} == {
        "environment": "ok",
        "vmm": "unsupported",
    }
    assert found["environment"]["command"].startswith("python -m harness.measure only=environment")


@pytest.mark.parametrize(
    ("status", "timed_out", "reason"),
    [(-9, True, "ended from outside"), (-11, False, "ended from outside"), (0, False, "its own")],
)
def test_a_process_that_dies_leaves_its_record(tmp_path, monkeypatch, status, timed_out, reason):
    def died(arguments, limit_s):
        record = {"status": "partial", "reason": "its own", "results": {"half": 1}}
        left = {"environment": {}, "command": "c", "seconds": 1, "started": "now"}
        (tmp_path / "vmm.json").write_text(json.dumps(record | left))
        return {"exit_status": status, "timed_out": timed_out, "seconds": 3.0, "output": ""}

    monkeypatch.setattr(runner, "run_python", died)
    assert main(["device=cpu", "only=vmm", "isolate=true", f"out={tmp_path}"]) == 1
    kept = records(tmp_path)["vmm"]
    assert kept["reason"].startswith(reason)
    assert kept["results"] == {"half": 1}


def test_a_process_that_cannot_start_is_a_failed_step(tmp_path, monkeypatch):
    done = {"exit_status": 1, "timed_out": False, "seconds": 1.0, "output": "x\nno module\n"}
    monkeypatch.setattr(runner, "run_python", lambda *_: done)
    assert main(["device=cpu", "only=vmm", "isolate=true", f"out={tmp_path}"]) == 1
    assert records(tmp_path)["vmm"]["reason"] == "its process wrote nothing: no module"


def test_ctrl_c_before_the_process_wrote_is_a_record_and_status_130(tmp_path, monkeypatch):
    def interrupted(arguments, limit_s):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_python", interrupted)
    assert main(["device=cpu", "only=vmm", "isolate=true", f"out={tmp_path}"]) == 130
    kept = records(tmp_path)["vmm"]
    assert (kept["status"], kept["reason"]) == ("partial", "interrupted before it began")
