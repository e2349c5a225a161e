"""Every attention back end against float64: random lengths, shuffled tables, poisoned memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from allocators.base import Unsupported
from harness.measure.cases import TOLERANCE, make_case
from harness.measure.job import Job, one_line
from kernels import BACKENDS, decode, prefill

LAYOUTS: dict[str, dict[str, int]] = {
    "page 16": {"page": 16},
    "contiguous": {},
    "page 1": {"page": 1},
    "page 7": {"page": 7},
    "page 256": {"page": 256},
    "padded 11": {"padded": 11},
}
#: one token, exact multiples of pages and of what a kernel's program walks, and between
FIXED_LENGTHS = (1, 16, 256, 257, 1024)
RANDOM_ROWS = 4


def check(job: Job) -> None:
    """Fill `results.correctness`, a row for each back end and batch."""
    rows: list[dict[str, Any]] = []
    job.results["correctness"] = rows
    for dtype, head_dim, name in _batches(job):
        what = f"correctness {dtype} {head_dim} {name}"
        if not job.room(what):
            continue
        rows.extend(_try_all(job, getattr(torch, dtype), head_dim, name))
        job.save()


def _batches(job: Job) -> Iterator[tuple[str, int, str]]:
    """Yield type, head size and layout, what matters most first: each compiles kernels."""
    if job.device.type == "cpu":
        dtypes, first, dims = ("float32",), "float32", (64,)
    else:
        dtypes, first, dims = ("float32", "float16"), "bfloat16", (64, 80, 96, 256)
    layouts = list(LAYOUTS)[: 2 if job.quick else None]
    yield from ((first, 128, name) for name in layouts)
    if first != dtypes[0]:
        yield from ((dtype, 128, name) for dtype in dtypes for name in layouts[:2])
    yield from ((first, dim, layouts[0]) for dim in dims)


def _try_all(job: Job, dtype: torch.dtype, head_dim: int, name: str) -> list[dict[str, Any]]:
    lengths, queries = batch(1 if job.quick else RANDOM_ROWS)
    kinds: dict[str, Any] = {"decode": np.ones_like(queries), "prefill": queries}
    found = []
    for mode, new in kinds.items():
        case = make_case(lengths, new, job.device, dtype, head_dim, **LAYOUTS[name])
        for backend in BACKENDS:
            row = {
                "backend": backend,
                "mode": mode,
                "dtype": str(dtype).removeprefix("torch."),
                "head_dim": head_dim,
                "layout": name,
                "status": "ok",
                "error": None,
                "tolerance": TOLERANCE[dtype],
                "reason": "",
            }
            found.append(row)
            poisoned = torch.full_like(case.q, float("nan"))
            arguments = (case.q, case.keys, case.values, case.layout)
            try:
                if mode == "decode":
                    decode(*arguments, case.scale, backend=backend, out=poisoned)
                else:
                    prefill(*arguments, new, case.scale, backend=backend, out=poisoned)
                row["error"] = case.error(poisoned)
            except Unsupported as refusal:
                row |= {"status": "unsupported", "reason": str(refusal)}
            except Exception as error:
                # A back end that fails is what is looked for here; the others go on.
                row |= {"status": "failed", "reason": one_line(error)}
            else:
                if row["error"] > row["tolerance"]:
                    row |= {"status": "failed", "reason": "differs from float64"}
    return found


def batch(random_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths of rows, and new tokens of each: whole prompts, chunks, single tokens."""
    rng = np.random.default_rng(seed)
    lengths = np.append(FIXED_LENGTHS, rng.integers(1, 1500, random_rows)).astype(np.int64)
    queries = rng.integers(1, lengths + 1)
    queries[::2] = lengths[::2]
    return lengths, queries
