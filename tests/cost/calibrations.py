"""A made-up calibration whose every time is easy to work out by hand."""

from copy import deepcopy
from dataclasses import asdict

from harness.cost.calibration import Calibration
from harness.cost.shapes import ModelShape

SHAPE = ModelShape(
    name="made up", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=50,
    max_context=512, dtype_bytes=4, tied_embeddings=True,
)  # fmt: skip


def decode_rows(unit):
    return [
        {"batch": b, "context_tokens": [1, 100, 200], "seconds": [b * unit * c for c in (1, 3, 9)]}
        for b in (1, 4, 16)
    ]


def prefill_rows(unit):
    return [
        {"past_tokens": p, "new_tokens": [1, 10, 100], "seconds": [(1 + p) * unit * c for c in
         (1, 5, 300)]}
        for p in (0, 50)
    ]  # fmt: skip


def paged(rows, unit, **units):
    """Return the table of pages of 16 tokens, and of other sizes by `_TOKENS=unit`."""
    sizes = {16: unit, **{int(name[1:]): each for name, each in units.items()}}
    return [{"page_tokens": size, "rows": rows(sizes[size])} for size in sorted(sizes)]


TABLES = {
    "linear": {"tokens": [16, 32, 64], "seconds": [1.0, 1.5, 2.5]},
    "store": {"tokens": [1, 64], "seconds": [0.01, 0.05]},
    "prefill": {"contiguous": prefill_rows(1e-3), "paged": paged(prefill_rows, 2e-3)},
    "decode": {"contiguous": decode_rows(1e-3), "paged": paged(decode_rows, 1.7e-3)},
    "sample": {"rows": [16, 64], "seconds": [0.2, 0.7]},
    "overhead": {"rows": [1, 8], "seconds": [0.1, 0.3]},
    "table": {"bytes": [4, 4096], "seconds": [1e-4, 1e-3]},
    "copy": {"bytes": [1024, 4096], "seconds": [1e-2, 3e-2]},
    "swap_out": {"bytes": [1024, 4096], "seconds": [2e-2, 5e-2]},
    "swap_in": {"bytes": [1024, 4096], "seconds": [3e-2, 7e-2]},
    "map": {"page_bytes": [65536, 2097152], "seconds": [1e-3, 5e-3], "reason": ""},
    "unmap": {"page_bytes": [65536, 2097152], "seconds": [2e-3, 6e-3], "reason": ""},
}


def made_up(shape=SHAPE, **changes):
    """Return the calibration for `shape`; `changes` replace whole tables."""
    return Calibration(
        model=asdict(shape), device="cpu", dtype="float32", backend="cpu", batch_invariant=True,
        row_tile=16, threads=1, page_tokens=16, repeats=3, statistic="median", probe_s=1.0,
        tables={**deepcopy(TABLES), **changes},
    )  # fmt: skip
