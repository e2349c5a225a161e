"""The steps `kernels` and `identity`, which run tests that leave records of what they checked.

What is right is decided in `tests`, once; here it is only run on the device that is measured.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import Any

from harness.measure.job import Job, Skipped
from harness.measure.subprocesses import ROOT, last_line, run_for

#: what decides whether attention is right, and whether all allocators emit the same tokens
ATTENTION = "tests/kernels/test_backends.py"
TOKENS = "tests/executors/model/test_identity_by_device.py"
#: names the file to which tests append their records, a JSON object a line (tests/records.py)
VARIABLE = "KV_HARNESS_RECORDS"
#: without the options, the conftest and the plugins of the whole suite, which a machine with a GPU
#: may lack
_PYTEST: Sequence[str] = (
    *("-m", "pytest", "-q", "--tb=short", "--noconftest", "-o", "addopts="),
    *("--import-mode=importlib", "-p", "no:cacheprovider"),
)


def kernels(job: Job) -> None:
    """Say whether attention is right.

    Fills `results.correctness`, a row for each back end and batch.
    """
    job.results["correctness"] = rows = []
    # A back end may refuse with a reason.
    _run_checks(job, ATTENTION, job.left_s(), rows, {"ok", "unsupported"})
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
    job.results["cases"] = rows = []
    try:
        _run_checks(job, TOKENS, job.left_s(), rows, {"ok"})
    finally:
        served = [row for row in rows if "digest" in row]
        job.results |= {
            "same_outputs": all(row["status"] != "differs" for row in served),
            "resident_agrees": all(row["resident_difference_bytes"] == [0, 0] for row in served),
        }
    wrong = [row for row in rows if row["status"] != "ok"]
    if wrong:
        one = wrong[0]
        raise AssertionError(
            f"{len(wrong)} of {len(rows)} runs differ or fail, first {one['model']} {one['mode']} "
            f"{one['allocator']} pressure={one['pressure']}: {one['reason'] or one['status']}"
        )


def _run_checks(
    job: Job, tests: str, limit_s: float, rows: list[dict[str, Any]], passed: Collection[str]
) -> None:
    """Run those of the file `tests` that are for this device; add their records to `rows`.

    A record of the setting goes to the results themselves.  However the tests end (a crash,
    Ctrl-C), what they have left is kept.  `passed` are the statuses of a check that passed.  Raises
    `Skipped` if there are no tests here or no pytest, `RuntimeError` if they leave nothing or fail
    without a record that says so.
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
    try:
        done = run_for(job, arguments, limit_s, unreached, cwd=ROOT, **variables)
    finally:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        for record in map(json.loads, lines):
            if record.pop("kind") == "setting":
                job.results |= record
            else:
                rows.append(record)
    told = any(row["status"] not in passed for row in rows)
    # Status 0: all passed; 1: some did not.
    expected = done["timed_out"] or done["exit_status"] == 0 or (done["exit_status"] == 1 and told)
    if not expected or not (rows or done["timed_out"]):
        raise RuntimeError(f"{tests} left no record of what it did: {last_line(done)}")


def selected(job: Job) -> str:
    """Return the expression that selects tests by the place in their name (tests/devices.py)."""
    kind = job.device.type
    return f"{kind}-{'small' if job.quick or kind == 'cpu' else 'full'}"
