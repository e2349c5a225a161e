"""Every attention back end on every kind of device against float64, with a record of each batch."""

import numpy as np
import pytest
import torch

from kernels import BACKENDS, decode, prefill
from tests.devices import each_place
from tests.kernels.cases import TOLERANCE, error_of, make
from tests.records import recorded

LAYOUTS = {
    "page 16": {"page": 16},
    "contiguous": {},
    "page 1": {"page": 1},
    "page 7": {"page": 7},
    "page 256": {"page": 256},
    "padded 11": {"padded": 11},
}
#: windows of some layouts, and whether heads have sinks: layers of gpt-oss (heads of 64), Gemma 3's
LAYERS = {
    "page 16, window 128, sinks": ("page 16", 128, True),
    "page 16, sinks": ("page 16", None, True),
    "page 1, window 128, sinks": ("page 1", 128, True),
    "contiguous, window 128, sinks": ("contiguous", 128, True),
    "padded 11, window 128, sinks": ("padded 11", 128, True),
    "page 16, window 100": ("page 16", 100, False),
    "contiguous, window 100": ("contiguous", 100, False),
}
#: one token, exact multiples of pages and of what a kernel's program walks, and between
FIXED_LENGTHS = {"small": (1, 16, 256, 257), "full": (1, 16, 256, 257, 1024)}
#: how many random ones beside, and below what length
RANDOM_LENGTHS = {"small": (1, 300), "full": (4, 1500)}


def batches(device, size):
    """Yield type, head size and layout, what matters most first: each compiles kernels."""
    layouts = list(LAYOUTS) if size == "full" else list(LAYOUTS)[:2]
    first, others, dims = "bfloat16", ("float32", "float16"), (64, 80, 96, 256)
    if device == "cpu":
        first, others, dims = "float32", (), (64,)
    yield from ((first, 128, layout) for layout in layouts)
    layers = list(LAYERS) if size == "full" else list(LAYERS)[:2]
    yield from ((first, 64 if LAYERS[layer][2] else 128, layer) for layer in layers)
    yield from ((dtype, 64, layers[0]) for dtype in others)
    yield from ((dtype, 128, layout) for dtype in others for layout in layouts[:2])
    yield from ((first, dim, layouts[0]) for dim in dims)


def rows(size):
    """Return lengths of rows, and new tokens of each: whole prompts, chunks, single tokens."""
    rng = np.random.default_rng(0)
    count, below = RANDOM_LENGTHS[size]
    lengths = np.append(FIXED_LENGTHS[size], rng.integers(1, below, count))
    queries = rng.integers(1, lengths + 1)
    queries[::2] = lengths[::2]
    return lengths, queries


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["decode", "prefill"])
@pytest.mark.parametrize(("device", "size", "dtype", "head_dim", "layout"), each_place(batches))
def test_it_agrees_with_float64_or_refuses_with_a_reason(
    device, size, dtype, head_dim, layout, mode, backend
):
    kind = getattr(torch, dtype)
    lengths, queries = rows(size)
    new = np.ones_like(queries) if mode == "decode" else queries
    shape = {"heads": (8, 2), "dim": head_dim, "dtype": kind, "device": device}
    where, window, sinks = LAYERS.get(layout, (layout, None, False))
    case = make(lengths, new, **shape, **LAYOUTS[where])
    if sinks:
        case.with_sinks()
    if window is not None:
        case.look_through(window)
    if window is not None and backend == "flash":
        # Its kernels multiply what lies behind the window, within a block, by zero.
        for cache in (case.k_cache, case.v_cache):
            cache.nan_to_num_(0.0)
    more = {"backend": backend, "window": window, "sinks": case.sinks}
    facts = {"backend": backend, "mode": mode, "dtype": dtype, "head_dim": head_dim}
    with recorded(
        "attention", **facts, layout=layout, error=None, tolerance=TOLERANCE[kind]
    ) as record:
        out = case.poisoned_out()
        if mode == "decode":
            decode(*case.args, case.scale, out=out, **more)
        else:
            prefill(*case.args, new, case.scale, out=out, **more)
        record["error"] = error_of(out, case)
        if record["error"] > record["tolerance"]:
            record |= {"status": "failed", "reason": "differs from float64"}
    assert record["status"] != "failed", f"{record['reason']} by {record['error']}"
    assert record["status"] == "ok" or record["reason"]
    assert record["status"] == "ok" or backend != "reference"
