"""The step `kernels`: whether attention is right, then how long its fast back ends take."""

from __future__ import annotations

from harness.measure.job import Job, Skipped
from harness.measure.steps import speed
from harness.measure.steps.checks import run_checks

TESTS = "tests/kernels/test_backends.py"
#: of the step's time, for what is right; the rest is for times
CHECKING = 0.6


def run(job: Job) -> None:
    """Fill `results.correctness`, a row for each back end and batch, and what `speed` measures."""
    job.results["correctness"] = rows = []
    unchecked = None
    try:
        rows += run_checks(job, TESTS, CHECKING * job.left_s()).get("attention", [])
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
