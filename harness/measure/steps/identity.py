"""The step `identity`: in float32, the same tokens from every allocator, also under pressure."""

from __future__ import annotations

from harness.measure.job import Job
from harness.measure.steps.checks import run_checks

TESTS = "tests/executors/model/test_identity_by_device.py"


def run(job: Job) -> None:
    """Fill `results.cases`, a row for each way to sample and allocator."""
    found = run_checks(job, TESTS, job.left_s())
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
