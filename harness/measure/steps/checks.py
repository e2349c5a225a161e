"""The steps `kernels` and `identity`, which run tests that leave records of what they checked.

What is right is decided in `tests`, once; here it is only run on the device that is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from harness.measure.job import Job, Skipped
from harness.measure.steps import speed
from harness.measure.subprocesses import ROOT, last_line, run_for

#: what decides whether attention is right, and whether all allocators emit the same tokens
ATTENTION = "tests/kernels/test_backends.py"
TOKENS = "tests/executors/model/test_identity_by_device.py"
#: of the time of `kernels`, for what is right; the rest is for times
CHECKING = 0.6
#: names the file to which tests append their records, a JSON object a line (tests/records.py)
VARIABLE = "KV_HARNESS_RECORDS"
#: without the options, the conftest and the plugins of the whole suite, which a machine with a GPU
#: may lack
_PYTEST: Sequence[str] = (
    *("-m", "pytest", "-q", "--tb=short", "--noconftest", "-o", "addopts="),
    *("--import-mode=importlib", "-p", "no:cacheprovider"),
)


def kernels(job: Job) -> None:
    """Say whether attention is right, then how long its fast back ends take.

    Fills `results.correctness`, a row for each back end and batch, and what `speed` measures.
    """
    job.results["correctness"] = rows = []
    unchecked = None
    try:
        rows += _run_checks(job, ATTENTION, CHECKING * job.left_s()).get("attention", [])
    except Skipped as error:
        unchecked = error
    job.save()
    speed.measure(job)
    if unchecked:
        raise Skipped(f"times alone: {unchecked}")
    failed = [row for row in rows if row["status"] == "failed"]
    job.results["correct"] = not failed
    if failed:
        worst = failed[0]
        raise ArithmeticError(
            f"{len(failed)} batches differ or fail, first {worst['backend']} {worst['mode']} "
            f"{worst['dtype']} {worst['layout']}: {worst['reason']}"
        )


def identity(job: Job) -> None:
    """Say whether every allocator, also under pressure, emits the same tokens in float32.

    Fills `results.cases`, a row for each way to sample and allocator.
    """
    found = _run_checks(job, TOKENS, job.left_s())
    for setting in found.get("setting", []):
        job.results |= setting
    rows = found.get("identity", [])
    served = [row for row in rows if "digest" in row]
    job.results |= {
        "cases": rows,
        "same_outputs": all(row["status"] != "differs" for row in served),
        "resident_agrees": all(row["resident_difference_bytes"] == [0, 0] for row in served),
    }
    wrong = [row for row in rows if row["status"] != "ok"]
    if wrong:
        one = wrong[0]
        raise AssertionError(
            f"{len(wrong)} of {len(rows)} runs differ or fail, first {one['mode']} "
            f"{one['allocator']} pressure={one['pressure']}: {one['reason'] or one['status']}"
        )


def _run_checks(job: Job, tests: str, limit_s: float) -> dict[str, list[dict[str, Any]]]:
    """Run those of the file `tests` that are for this device; return their records by kind.

    The records lie in the job's directory until the tests have ended, so a crash loses none.
    Raises `Skipped` if there are no tests here or no pytest, `RuntimeError` if they leave nothing
    or fail without a record that says so.
    """
    if not (ROOT / tests).is_file():
        raise Skipped(f"there is no {tests}: only a checkout can check what is right")
    if find_spec("pytest") is None:
        raise Skipped("pytest is not installed, which checks what is right")
    path = job.out / f"{job.step}-checks.jsonl"
    path.unlink(missing_ok=True)
    arguments = [*_PYTEST, "-k", selected(job), tests]
    unreached = "the checks that were not reached"
    variables = {VARIABLE: str(path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = run_for(job, arguments, limit_s, unreached, cwd=ROOT, **variables)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    records = [json.loads(line) for line in lines]
    told = any(record.get("status", "ok") != "ok" for record in records)
    # Status 0: all passed; 1: some did not.
    expected = done["timed_out"] or done["exit_status"] == 0 or (done["exit_status"] == 1 and told)
    if not expected or not (records or done["timed_out"]):
        raise RuntimeError(f"{tests} left no record of what it did: {last_line(done)}")
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record.pop("kind"), []).append(record)
    return found


def selected(job: Job) -> str:
    """Return the expression that selects tests by the place in their name (tests/places.py)."""
    kind = job.device.type
    return f"{kind}-{'small' if job.quick or kind == 'cpu' else 'full'}"
