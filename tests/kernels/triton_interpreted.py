"""Triton kernels through Triton's interpreter; run by test_triton in a process of its own.

Shapes are small: the interpreter takes about a second for what a GPU does in microseconds.
"""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from allocators.base import BlockTable
from kernels import copy_slots, decode, load, place, probe, store
from kernels.triton_decode import (
    LEAST_SPLIT,
    LOT,
    SHORT,
    decode_reduce,
    most_splits,
    split_tokens,
)
from tests.kernels.cases import close, make

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_triton.py"

LAYOUTS = {
    "page-1": {"page": 1},
    "page-7": {"page": 7},
    "page-16": {"page": 16},
    "page-64": {"page": 64},
    "page-256": {"page": 256},
    "page-512": {"page": 512},
    "flat": {},
    "padded": {"padded": 5},
    "padded-204": {"padded": 204},
}
further = pytest.mark.further
#: `make test-further` takes these too
MORE = ("page-16", "page-64", "page-256", "padded")
#: a window of one token, of half a block, of a block and one, of more than a split
WINDOWS = (1, 33, 65, 600)


def decoded(case, **more):
    out = case.poisoned_out()
    more |= {"window": case.window, "sinks": case.sinks}
    return decode(*case.args, case.scale, backend="triton", out=out, **more)


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=[further] if name in MORE else []) for name in LAYOUTS]
)
def test_decode(layout):
    case = make([1, 64, 513, 1100], heads=(4, 1), **LAYOUTS[layout])
    close(decoded(case), case)


@pytest.mark.parametrize(
    "layout",
    [
        *("page-7", "flat", "padded-204"),
        *(pytest.param(name, marks=further) for name in ("page-1", "page-64")),
    ],
)
def test_what_lies_behind_the_window_is_not_read(layout):
    for window in WINDOWS:
        case = make([1, 33, 64, 700], heads=(4, 1), **LAYOUTS[layout])
        close(decoded(case.look_through(window)), case)


@pytest.mark.parametrize(
    ("layout", "window"), [("page-7", None), ("flat", 600), ("padded-204", 65)]
)
def test_a_sink_counts_once_a_row(layout, window):
    """However many splits the row has; what lies behind the window is NaN."""
    case = make([1, 700], heads=(2, 1), **LAYOUTS[layout]).with_sinks()
    case = case if window is None else case.look_through(window)
    found = decoded(case)
    close(found, case)
    without = decoded(replace(case, sinks=None))
    assert (found - without).abs().amax((1, 2)).min() > 1e-3, "sinks make a difference in each row"


def test_a_sink_counts_once_where_splits_are_joined_in_lots():
    """The row has seventeen splits, one more than are joined at once."""
    splits, dim = LOT + 1, 64
    length = torch.tensor([LOT * 4 * LEAST_SPLIT.value + 1], dtype=torch.int32)
    assert most_splits(int(length)) == splits
    peaks, totals, parts = torch.randn(splits), torch.rand(splits) + 1, torch.randn((splits, dim))
    sinks, out = torch.tensor([2.0]), torch.empty((1, 1, dim))
    decode_reduce[(1, 1)](
        peaks, totals, parts, out, length, sinks, dim, dim, splits, 0,
        DIM=dim, DIM_PAD=dim, LOT=LOT, WINDOWED=False,
    )  # fmt: skip
    weights = peaks.double().exp2()  # peaks are logits times log2 e
    sink = sinks.double().exp()
    expected = (weights @ parts.double()) / (weights @ totals.double() + sink)
    assert (out[0, 0] - expected).abs().max() < 1e-6


def test_sinks_in_half_precision():
    case = make([1, 20], dtype=torch.bfloat16, page=6).with_sinks()
    close(decoded(case), case)


def test_a_sink_that_takes_nothing_changes_no_bit():
    case = make([1, 600], heads=(2, 1), page=7)
    whole, case.sinks = decoded(case), torch.full((2,), float("-inf"))
    assert torch.equal(decoded(case), whole)


def test_tables_and_blocks_behind_the_window_are_not_read():
    """Where they are gone: the table holds a page there that does not exist."""
    case = make([700], heads=(2, 1), page=16).look_through(100)
    gone = (700 - 100) // 16
    case.layout.table[0, :gone] = -1
    rows = place(case.layout, case.k_cache)
    assert rows.table[0, :gone].eq(0).all()
    rows.table[0, :gone] = 1 << 30
    args = case.q, case.k_cache, case.v_cache, rows, case.scale
    close(decode(*args, backend="triton", window=100), case)


def test_long_rows_are_cut_into_longer_splits():
    """One of the last length with the least split, one of the first with the next."""
    lengths = [SHORT.value, SHORT.value + 1, LEAST_SPLIT.value]
    case = make(lengths, heads=(1, 1), page=64)
    close(decoded(case), case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    case = make([1, 20], dtype=dtype, page=6)
    close(decode(*case.args, case.scale, backend="triton", out=case.poisoned_out()), case)


@pytest.mark.parametrize(
    ("dim", "heads"), [(80, (6, 2)), (96, (1, 1)), (128, (17, 1)), (256, (1, 1))]
)
def test_head_sizes_and_groups(dim, heads):
    case = make([3, 18], page=7, dim=dim, heads=heads)
    close(decode(*case.args, case.scale, backend="triton", out=case.poisoned_out()), case)


@pytest.mark.parametrize("window", [None, 600])
def test_results_do_not_depend_on_the_layout(window):
    out = None
    for kind in ({}, {"page": 1}, {"page": 9}, {"page": 64}, {"padded": 204}):
        case = make([40, 1100], heads=(2, 1), **kind)
        case.window = window
        found = decoded(case)
        assert out is None or torch.equal(found, out), kind
        out = found


@pytest.mark.parametrize("window", [None, 600])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(window):
    """Beside rows that have fewer splits, more, and another size of split."""
    lengths = [1, 513, 1100, 4200]
    case = make(lengths, heads=(2, 1), page=9).with_sinks()
    case.window = window
    whole = decoded(case)
    for some in ([0], [1], [2], [3], [2, 1], [1, 2, 0]):
        layout = BlockTable(9, case.layout.table[some], case.layout.lengths[some])
        part = replace(case, q=case.q[some], layout=layout, queries=case.queries[some])
        assert torch.equal(decoded(part), whole[some]), some


def test_a_captured_pass_has_the_same_bits():
    """Its rows are bounded, not known, so it has more splits than any row needs."""
    case = make([40, 1100], heads=(2, 1), page=9)
    rows = place(case.layout, case.k_cache)
    bounded = replace(rows, max_length=1 << 16, host=None, derived={})
    caches = case.k_cache, case.v_cache
    out = decode(case.q, *caches, bounded, case.scale, backend="triton")
    assert torch.equal(out, decoded(case))


@triton.jit
def count_splits(lengths, counts, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    length = tl.load(lengths + at)
    tl.store(counts + at, tl.cdiv(length, split_tokens(length)))


def test_no_row_has_more_splits_than_there_is_room_for():
    """The host counts up to a length, the kernel cuts each row: here for all lengths to 2^20."""
    lengths = torch.arange(1, 1 + (1 << 20), dtype=torch.int32)
    counts = torch.empty_like(lengths)
    count_splits[(16,)](lengths, counts, BLOCK=1 << 16)
    most = np.maximum.accumulate(counts.numpy())
    some = np.unique(np.r_[1 : 1 << 20 : 997, np.flatnonzero(np.diff(most)) + 1, 1 << 12, 1 << 18])
    assert [most_splits(int(n)) for n in some] == most[some - 1].tolist()


def test_store_and_copies():
    cache = torch.full((3, 4, 2, 80), float("nan"))
    flat = torch.full((12, 2, 80), float("nan"))
    new = torch.randn((3, 2, 80))
    store(new, -new, cache, flat, np.array([6, 1, 11]), backend="triton")
    assert torch.equal(load(cache, [6, 1, 11]), new)
    assert torch.equal(load(flat, [6, 1, 11]), -new)
    assert cache.isnan().sum() == flat.isnan().sum() == 9 * 160
    writers = torch.tensor([2, 1, 1])
    store(-new, new, cache, flat, np.array([6, 1, 1]), writers=writers, backend="triton")
    assert torch.equal(load(cache, [6, 1, 11]), torch.stack([-new[2], -new[1], new[2]]))
    store(new, -new, cache, flat, np.array([6, 1, 11]), backend="triton")
    copy_slots([cache], np.array([[6, 1, 1], [1, 6, 1], [11, 0, 1]]), backend="triton")
    assert torch.equal(load(cache, [1, 6, 0, 11]), new[[0, 1, 2, 2]])
    copy_slots([cache], np.array([[0, 2, 2]]), backend="triton")
    assert torch.equal(load(cache, [2, 3]), new[[2, 0]])


def test_store_takes_views_of_one_projection_of_any_width():
    for heads, dim in ((3, 80), (9, 128), (1, 3)):
        cache = torch.full((2, 2, 4, heads, dim), float("nan"))
        wide = torch.randn((3, 5 * heads, dim))
        k, v = wide[:, heads : 2 * heads], wide[:, 3 * heads : 4 * heads]
        store(k, v, *cache, np.array([6, 1, 3]), backend="triton")
        assert torch.equal(load(cache[0], [6, 1, 3]), k)
        assert torch.equal(load(cache[1], [6, 1, 3]), v)
        assert cache.isnan().sum() == 2 * 5 * heads * dim


def test_copies_move_heads_that_lie_apart():
    whole = torch.full((2, 4, 5, 16), float("nan"))
    cache = whole[:, :, 1:4, :10]
    cache[:] = torch.randn(cache.shape)
    before, others = cache.clone(), whole.isnan().sum()
    copy_slots([cache], np.array([[6, 1, 2]]), backend="triton")
    assert torch.equal(load(cache, [1, 2]), load(before, [6, 7]))
    assert torch.equal(load(cache, [0, 3, 4, 5, 6, 7]), load(before, [0, 3, 4, 5, 6, 7]))
    assert whole.isnan().sum() == others


def test_the_probe_knows_the_interpreter():
    assert probe("triton", "cpu", "bfloat16", 80, 7).ok
