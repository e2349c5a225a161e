"""The steps that run tests: what they record, and what they say where tests cannot run."""

import json
from pathlib import Path

import pytest

from harness.measure import subprocesses
from harness.measure.job import Skipped
from harness.measure.steps import checks
from harness.measure.tables import DRAWN
from tests.measure.jobs import make_job
from tests.records import leave, recorded

ROW = {"model": "tiny", "mode": "beam", "allocator": "paged()", "pressure": "none", "reason": ""}
SERVED = {
    **ROW, "status": "ok", "digest": "sha256:1", "resident_difference_bytes": [0, 0],
}  # fmt: skip


@pytest.fixture
def tests_leave(monkeypatch):
    """Return a function that says which records the tests leave, with which status they end."""

    def set_up(*lines, exit_status=0, timed_out=False, interrupted=False):
        def run(arguments, limit_s, *, cwd, **variables):
            found.append(arguments)
            with Path(variables[checks.VARIABLE]).open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            if interrupted:
                raise KeyboardInterrupt
            return {
                "command": "python -m pytest", "exit_status": exit_status,
                "timed_out": timed_out, "seconds": 1.0, "output": "the last line\n",
            }  # fmt: skip

        found = []
        monkeypatch.setattr(subprocesses, "run_python", run)
        return found

    return set_up


def test_records_become_results(tmp_path, tests_leave):
    setting = {"kind": "setting", "prompt_tokens": [3]}
    asked = tests_leave(setting, {"kind": "identity", **SERVED})
    made = make_job("identity", tmp_path)
    checks.identity(made)
    assert "cpu-small" in asked[0]
    assert made.results["prompt_tokens"] == [3]
    assert made.results["cases"] == [SERVED]
    assert made.results["same_outputs"]
    assert made.results["resident_agrees"]
    assert not list(tmp_path.iterdir()), "what was read is not left beside the record"


@pytest.mark.parametrize("status", ["failed", "unsupported"])
def test_a_run_that_did_not_serve_fails_the_step(tmp_path, tests_leave, status):
    tests_leave({"kind": "identity", **ROW, "status": status, "reason": "no"}, exit_status=1)
    made = make_job("identity", tmp_path)
    with pytest.raises(
        AssertionError, match=r"1 of 1 runs differ or fail, first tiny beam paged\(\)"
    ):
        checks.identity(made)
    assert len(made.results["cases"]) == 1


def test_tests_that_are_cut_keep_what_they_left(tmp_path, tests_leave):
    row = {**SERVED, "resident_difference_bytes": [0, 4096]}
    tests_leave({"kind": "identity", **row}, exit_status=2, timed_out=True)
    made = make_job("identity", tmp_path)
    checks.identity(made)
    assert made.results["left_out"] == ["the checks that were not reached"]
    assert made.results["resident_agrees"] is False


@pytest.mark.parametrize(
    ("records", "exit_status"), [([], 0), ([], 5), ([SERVED], 1), ([SERVED], 3)]
)
def test_records_that_do_not_say_what_happened_fail_the_step(
    tmp_path, tests_leave, records, exit_status
):
    tests_leave(*({"kind": "identity", **each} for each in records), exit_status=exit_status)
    with pytest.raises(RuntimeError, match="left no record of what it did: the last line"):
        checks.identity(make_job("identity", tmp_path))


@pytest.mark.parametrize("ending", [{"exit_status": -11}, {"interrupted": True}])
def test_a_crash_and_ctrl_c_keep_what_was_left(tmp_path, tests_leave, ending):
    tests_leave({"kind": "setting", "page": 7}, {"kind": "identity", **SERVED}, **ending)
    made = make_job("identity", tmp_path)
    with pytest.raises(KeyboardInterrupt if "interrupted" in ending else RuntimeError):
        checks.identity(made)
    assert made.results["cases"] == [SERVED]
    assert made.results["page"] == 7
    shown = " ".join("\n".join(DRAWN["identity"](made.results)).split())
    assert "| tiny | beam paged() | none | ok |" in shown
    assert not list(tmp_path.iterdir())


def test_a_refusal_does_not_account_for_a_check_that_failed(tmp_path, tests_leave):
    row = {"backend": "flash", "status": "unsupported", "reason": "no GPU"}
    tests_leave({"kind": "attention", **row}, exit_status=1)
    made = make_job("kernels", tmp_path)
    with pytest.raises(RuntimeError, match="left no record"):
        checks.kernels(made)
    assert made.results["correctness"] == [row]
    assert "correct" not in made.results
    tests_leave({"kind": "attention", **row})
    checks.kernels(made)
    assert made.results["correct"]


def test_without_pytest_the_step_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(Skipped, match="pytest is not installed"):
        checks.identity(make_job("identity", tmp_path))


def test_without_tests_the_step_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    with pytest.raises(Skipped, match="there is no tests/kernels"):
        checks.kernels(make_job("kernels", tmp_path, quick=True))


def test_a_record_is_left_when_its_check_ends_and_not_when_it_is_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    monkeypatch.setenv(checks.VARIABLE, str(path))
    with recorded("attention", backend="a") as record:
        record["error"] = 0.5
    with pytest.raises(ZeroDivisionError), recorded("attention", backend="b"):
        raise ZeroDivisionError("a fault\nin a check")
    with pytest.raises(KeyboardInterrupt), recorded("attention", backend="c"):
        raise KeyboardInterrupt
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [
        {"kind": "attention", "backend": "a", "status": "ok", "reason": "", "error": 0.5},
        {"kind": "attention", "backend": "b", "status": "failed",
         "reason": "ZeroDivisionError: a fault in a check"},
    ]  # fmt: skip
    monkeypatch.delenv(checks.VARIABLE)
    leave("attention", {})
    assert len(path.read_text().splitlines()) == 2
