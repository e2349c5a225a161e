"""The step `kernels`: attention is right, then how long it takes."""

from __future__ import annotations

from harness.measure import correctness, speed
from harness.measure.job import Job


def run(job: Job) -> None:
    """Check every back end, then time those meant to be fast."""
    correctness.check(job)
    speed.measure(job)
    failed = [r for r in job.results["correctness"] if r["status"] == "failed"]
    job.results["correct"] = not failed
    if failed:
        worst = failed[0]
        raise ArithmeticError(
            f"{len(failed)} batches differ or fail, first {worst['backend']} {worst['mode']} "
            f"{worst['dtype']} {worst['layout']}: {worst['reason']}"
        )
