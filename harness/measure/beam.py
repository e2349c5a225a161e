"""The step `beam`: the demonstration of a real run, beam search on a small model."""

from __future__ import annotations

from harness.measure.comparison import compare
from harness.measure.job import Job

CPU_REQUESTS = 2


def run(job: Job) -> None:
    """Run `+workload=beam executor=model model=llama-tiny` by the public command."""
    requests = CPU_REQUESTS if job.quick else None
    compare(job, ["+workload=beam", "model=llama-tiny"], requests)
