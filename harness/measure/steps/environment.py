"""The step `environment`: which attention back end can do what here, with the reason if not."""

from __future__ import annotations

from itertools import product

from harness.measure.job import Job
from kernels import BACKENDS, probe

DTYPES = {"cuda": ("float32", "float16", "bfloat16"), "cpu": ("float32",)}
PAGE_TOKENS = (1, 16, 256, None)
HEAD_DIM = 128


def run(job: Job) -> None:
    """Fill `results.attention`, a row for each back end, type and page."""
    rows = []
    for backend, dtype, page in product(BACKENDS, DTYPES[job.device.type], PAGE_TOKENS):
        answer = probe(backend, job.device.type, dtype, HEAD_DIM, page)
        rows.append(
            {
                "backend": backend,
                "dtype": dtype,
                "page_tokens": page,
                "ok": answer.ok,
                "reason": answer.reason,
            }
        )
    job.results["attention"] = {"head_dim": HEAD_DIM, "rows": rows}
