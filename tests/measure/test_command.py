"""`python -m harness.measure` end to end without a GPU, and how it behaves when things go wrong."""

import json
from dataclasses import replace

import pytest

from harness.measure import options, runner
from harness.measure.__main__ import main
from harness.measure.job import Unmeasurable
from harness.measure.options import STEPS
from harness.measure.runner import PLAN
from harness.measure.steps import checks
from tests.measure.jobs import records

HERE = ("environment", "kernels", "curve", "vmm", "identity")


def plan(monkeypatch, **steps):
    """Replace the work of these steps; their order and shares of time stay."""
    made = {name: replace(PLAN[name], run=run) for name, run in steps.items()}
    monkeypatch.setattr(runner, "PLAN", made)


def test_the_chain_without_a_gpu(tmp_path, capsys, monkeypatch):
    # The checks themselves are run by the suite; here a few show what becomes of their records.
    monkeypatch.setattr(checks, "selected", lambda job: "cpu-small-float32-64 or cpu-small-greedy")
    out = tmp_path / "records"
    assert main(["device=cpu", "quick=true", f"out={out}", f"only={','.join(HERE)}"]) == 0
    found = records(out)
    assert set(found) == set(HERE)
    for step, record in found.items():
        assert record["step"] == step
        assert record["schema_version"] == 1
        assert record["command"].startswith("python -m harness.measure device=cpu quick=true")
        assert record["environment"]["versions"]["torch"]
        assert record["environment"]["accelerator"] is None
        assert 0 <= record["seconds"] < record["limit_s"] < 540
        assert record["status"] == ("unsupported" if step == "vmm" else "ok"), record["reason"]
    kernels = found["kernels"]["results"]
    assert kernels["correct"]
    checked = [row for row in kernels["correctness"] if row["status"] == "ok"]
    assert {(row["backend"], row["mode"]) for row in checked} >= {
        (backend, mode) for backend in ("reference", "cpu") for mode in ("decode", "prefill")
    }
    assert all(row["error"] <= row["tolerance"] for row in checked)
    assert all(row["reason"] for row in kernels["correctness"] if row["status"] != "ok")
    curve = found["curve"]["results"]
    timed = [row for row in curve["rows"] if row["status"] == "ok"]
    assert {row["mode"] for row in timed} == {"decode", "prefill"}
    assert {row["rows"] for row in timed} == {"even", "ragged"}
    assert {row["layout"] for row in timed} == {"contiguous", "paged", "padded", "virtual"}
    assert all(row["share"] > 0 and row["samples"] >= 3 for row in timed)
    assert all(row["ratio_low"] <= row["ratio"] <= row["ratio_high"] for row in timed)
    assert (out / "curve.png").stat().st_size > 10_000
    assert found["vmm"]["results"]["while_mapping"]["pages_mapped"] > 0
    served = found["identity"]["results"]
    assert served["same_outputs"]
    assert served["resident_agrees"]
    assert {row["pressure"] for row in served["cases"]} == {"swap", "recompute"}
    assert all(row["preemptions"] for row in served["cases"])
    assert [bool(row["swapped_slots"]) for row in served["cases"]] == [
        row["pressure"] == "swap" for row in served["cases"]
    ]
    report = (out / "README.md").read_text()
    assert "measures no GPU" in report
    assert "](curve.png)" in report
    for step in HERE:
        assert f"## {step}" in report
    assert "vmm: unsupported (but for decode while mapping" in capsys.readouterr().err


def fine(job):
    job.results["number"] = float("nan")


def broken(job):
    job.results["before"] = 1
    raise ZeroDivisionError("a fault\nin a step")


def absent(job):
    raise Unmeasurable("it is not here")


def late(job):
    assert job.room("what fits")
    job.limit_s = 0
    assert not job.room("what does not")


def test_a_step_that_fails_stops_no_other_and_keeps_what_it_had(tmp_path, monkeypatch):
    steps = {"kernels": broken, "vmm": absent, "identity": late, "opt-13b": fine}
    plan(monkeypatch, environment=fine, **steps)
    assert main(["device=cpu", f"out={tmp_path}"]) == 1
    found = records(tmp_path)
    assert {step: record["status"] for step, record in found.items()} == {
        "environment": "ok",
        "kernels": "failed",
        "vmm": "unsupported",
        "identity": "partial",
        "opt-13b": "ok",
    }
    assert found["environment"]["results"] == {"number": None}
    assert found["kernels"]["results"] == {"before": 1}
    assert found["kernels"]["reason"].startswith("ZeroDivisionError: a fault in a step (test_")
    assert found["vmm"]["reason"] == "it is not here"
    assert found["identity"]["results"]["left_out"] == ["what does not"]


def test_nothing_is_begun_that_cannot_end(tmp_path, monkeypatch):
    plan(monkeypatch, **{"environment": fine, "opt-13b": fine})
    assert main(["device=cpu", f"out={tmp_path}", "limit_s=4"]) == 1  # nothing was measured
    found = records(tmp_path)
    assert found["environment"]["status"] == "ok"
    assert found["opt-13b"]["status"] == "skipped"
    assert "it needs 90 s" in found["opt-13b"]["reason"]
    assert main(["device=cpu", f"out={tmp_path / 'just'}", "limit_s=90", "only=opt-13b"]) == 0
    # Whoever runs it again with more time loses nothing to one who has less.
    plan(monkeypatch, **{"opt-13b": fine})
    assert main(["device=cpu", f"out={tmp_path}", "limit_s=120"]) == 0
    assert main(["device=cpu", f"out={tmp_path}", "limit_s=1"]) == 1
    assert records(tmp_path)["opt-13b"]["status"] == "ok"


def test_an_interruption_loses_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(job):
        job.results["half"] = 1
        job.save()
        raise KeyboardInterrupt

    plan(monkeypatch, environment=fine, kernels=interrupted, vmm=fine)
    assert main(["device=cpu", f"out={tmp_path}"]) == 130
    found = records(tmp_path)
    assert set(found) == {"environment", "kernels"}
    assert found["kernels"]["status"] == "partial"
    assert found["kernels"]["results"] == {"half": 1}
    assert "interrupted" in (tmp_path / "README.md").read_text()


def test_a_record_exists_while_its_step_runs(tmp_path, monkeypatch):
    def looks(job):
        assert json.loads(job.path.read_text())["status"] == "partial"

    plan(monkeypatch, environment=looks)
    assert main(["device=cpu", f"out={tmp_path}"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["device=tpu"], "device must be one of cuda, cpu"),
        (["only=kernels,nothing"], "only must name steps"),
        (["only="], "only= has no value"),
        (["only=[]"], "only must name steps"),
        (["limit_s=0"], "limit_s must be a positive number"),
        (["limit_s=soon"], "limit_s"),
        (["requests=0"], "requests must be at least 1"),
        (["speed=high"], "unknown option speed"),
        (["quick"], "is not OPTION=VALUE"),
        (["device=cpu", "out={file}"], "is a file"),
        (["report"], "report takes one directory"),
        (["report", "{file}"], "is not a directory"),
        (["report", "{empty}"], "holds no record"),
        (["report", "{spoilt}"], "not a record"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, said, tmp_path, capsys):
    file, empty, spoilt = tmp_path / "file", tmp_path / "empty", tmp_path / "spoilt"
    file.touch()
    empty.mkdir()
    spoilt.mkdir()
    (spoilt / "vmm.json").write_text("{")
    given = [a.format(file=file, empty=empty, spoilt=spoilt) for a in arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


RECORD = {
    "status": "ok", "reason": None, "command": "c", "started": "now", "seconds": 1,
    "environment": {}, "results": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"environment": None}, {"results": None}, {"status": 3}, {"seconds": ...}]
)
def test_a_damaged_record_is_one_line_and_status_2(change, tmp_path, capsys):
    found = {key: value for key, value in {**RECORD, **change}.items() if value is not ...}
    (tmp_path / "vmm.json").write_text(json.dumps(found))
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("vmm.json: not a record of harness.measure\n")


@pytest.mark.parametrize(
    "results", [{"rows": 3, "granularity_bytes": 7}, {"rows": [{}], "granularity_bytes": {}}]
)
def test_results_that_are_no_tables_are_left_to_the_record(results, tmp_path):
    (tmp_path / "vmm.json").write_text(json.dumps({**RECORD, "results": results}))
    assert main(["report", str(tmp_path)]) == 0
    assert "The record ends before its tables" in (tmp_path / "README.md").read_text()


def test_all_that_is_missing_is_named_at_once(capsys, monkeypatch):
    monkeypatch.setattr(options, "installed", lambda name: name not in ("yaml", "psutil"))
    assert main(["device=cpu"]) == 2
    said = capsys.readouterr().err
    assert said == "error: not installed: yaml, psutil (docs/gpu.md says what to take along)\n"


def test_without_a_gpu_the_default_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_help_names_every_step(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(step in shown for step in STEPS)
