"""A query sees its window and nothing behind it: that holds NaN."""

import numpy as np
import pytest
import torch

from allocators.base import BlockTable, Unsupported
from kernels import decode, prefill
from tests.kernels.cases import close, make

LAYOUTS = {
    "page-1": {"page": 1},
    "page-7": {"page": 7},
    "page-64": {"page": 64},
    "flat": {},
    "padded": {"padded": 11},
}
LENGTHS = [1, 32, 33, 100, 301]
WINDOWS = (1, 2, 31, 32, 33, 100, 1000)


def refused(backend, layout):
    return backend == "sdpa" and layout != "flat"


def seen_by_definition(case, window):
    """Attention of each query over a list of the positions it sees, in float64."""
    out, at = torch.empty(case.q.shape, dtype=torch.float64), 0
    rows = zip(case.layout.lengths, case.queries, range(len(case.queries)), strict=True)
    for length, new, row in rows:
        for position in range(length - new, length):
            sight = range(max(0, position - window + 1), position + 1)
            page = [case.layout.table[row, j // case.layout.page_tokens] for j in sight]
            token = [j % case.layout.page_tokens for j in sight]
            k, v = (x[page, token].double() for x in (case.k_cache, case.v_cache))
            for head in range(case.q.shape[1]):
                kv_head = head * k.shape[1] // case.q.shape[1]
                weights = (k[:, kv_head] @ case.q[at, head].double() * case.scale).softmax(0)
                out[at, head] = weights @ v[:, kv_head]
            at += 1
    return out


@pytest.mark.parametrize("window", [1, 5, 16, 40])
def test_the_reference_sees_what_the_definition_names(window):
    for queries in ([1, 1, 1], [1, 20, 7]):
        case = make([1, 20, 45], queries, page=6).look_through(window)
        assert (case.expected() - seen_by_definition(case, window)).abs().max() < 1e-12


@pytest.mark.parametrize("backend", ["reference", "cpu", "sdpa"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_behind_the_window_is_not_read(backend, layout):
    for window in WINDOWS:
        case = make(LENGTHS, heads=(6, 2), **LAYOUTS[layout]).look_through(window)
        chunk = make(LENGTHS, [1, 32, 5, 80, 9], **LAYOUTS[layout]).look_through(window)
        args = (*case.args, case.scale)
        if refused(backend, layout):
            with pytest.raises(Unsupported, match="contiguous rows, not pages"):
                decode(*args, backend=backend, window=window)
            continue
        out = case.poisoned_out()
        close(decode(*args, backend=backend, out=out, window=window), case)
        args, out = (*chunk.args, chunk.queries, chunk.scale), chunk.poisoned_out()
        close(prefill(*args, backend=backend, out=out, window=window), chunk)


def test_sdpa_decodes_even_rows_through_a_window_in_one_call(monkeypatch):
    from kernels import sdpa

    case = make([40, 40, 40])
    case.layout.base[:] = [2, 42, 82]
    case.k_cache, case.v_cache = torch.randn((2, 122, 2, 64))
    case.look_through(7)
    calls, attend = [], sdpa.scaled_dot_product_attention

    def noted(*args, **options):
        calls.append(args)
        return attend(*args, **options)

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", noted)
    close(decode(*case.args, case.scale, backend="sdpa", window=7), case)
    assert len(calls) == 1


def test_the_cpu_kernel_gives_the_same_bits_alone_in_chunks_and_in_prefill():
    length, window = 150, 45
    case = make([length], [length], page=16).look_through(window)
    whole = prefill(*case.args, [length], case.scale, backend="cpu", window=window)
    caches, table = (case.k_cache, case.v_cache), case.layout.table
    for n in range(1, length + 1):
        layout = BlockTable(16, table, np.array([n]))
        one = decode(case.q[n - 1 : n], *caches, layout, case.scale, backend="cpu", window=window)
        assert torch.equal(one, whole[n - 1 : n])
    layout = BlockTable(16, table, np.array([120]))
    some = prefill(case.q[87:120], *caches, layout, [33], case.scale, backend="cpu", window=window)
    assert torch.equal(some, whole[87:120])


def test_a_window_as_long_as_the_row_changes_no_bit():
    case = make(LENGTHS, LENGTHS, page=7)
    args = (*case.args, case.queries, case.scale)
    for backend in ("reference", "cpu"):
        whole = prefill(*args, backend=backend)
        assert torch.equal(prefill(*args, backend=backend, window=max(LENGTHS)), whole)


def test_a_window_of_nothing_is_refused():
    case = make([3], page=4)
    with pytest.raises(ValueError, match="a window is 1 position or more, not 0"):
        decode(*case.args, case.scale, window=0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_sink_takes_part_in_the_softmax_without_a_value(backend):
    """It is one more position, whose key gives that score and whose value is 0."""
    sinks = torch.tensor([-3.0, 0.0, 2.0, 6.0])
    for queries, window in (([1, 1, 1], None), ([1, 20, 7], 5), ([1, 20, 45], 64)):
        case = make([1, 20, 45], queries, page=6, heads=(4, 2))
        args = (*case.args, case.queries, case.scale)
        plain = prefill(*args, backend="reference", window=window)
        found = prefill(*args, backend=backend, window=window, sinks=sinks)
        # Of values that are all 1 the sum of the weights is left.
        ones = (case.q, case.k_cache, torch.ones_like(case.v_cache), *args[3:])
        weight = prefill(*ones, backend=backend, window=window, sinks=sinks)
        assert (weight[..., 0] < 1).all()
        assert (found - plain * weight).abs().max() < 1e-5
        total = sinks_by_definition(case, window, sinks)
        assert (weight[..., 0] - total).abs().max() < 1e-5


def sinks_by_definition(case, window, sinks):
    """Return the sum of each query's weights, [T, heads]: what the sink leaves of 1."""
    out, at = torch.empty(case.q.shape[:2]), 0
    rows = zip(case.layout.lengths, case.queries, range(len(case.queries)), strict=True)
    for length, new, row in rows:
        for position in range(length - new, length):
            sight = range(max(0, position - (window or length) + 1), position + 1)
            page = [case.layout.table[row, j // case.layout.page_tokens] for j in sight]
            k = case.k_cache[page, [j % case.layout.page_tokens for j in sight]]
            for head in range(case.q.shape[1]):
                kv_head = head * k.shape[1] // case.q.shape[1]
                scores = k[:, kv_head] @ case.q[at, head] * case.scale
                out[at, head] = 1 - torch.cat([scores, sinks[head : head + 1]]).softmax(0)[-1]
            at += 1
    return out


def test_sinks_that_cannot_be_computed_are_refused():
    case = make([4], heads=(4, 2))
    with pytest.raises(Unsupported, match="sinks are computed by reference, cpu, triton alone"):
        decode(*case.args, case.scale, backend="sdpa", sinks=torch.zeros(4))
    with pytest.raises(ValueError, match="one for each of 4 heads"):
        decode(*case.args, case.scale, sinks=torch.zeros(3))
