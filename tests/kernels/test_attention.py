"""Every back end that runs on a CPU agrees with float64, whatever the layout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.bias import CausalBias

from allocators.base import BlockTable, Strided, Unsupported
from kernels import decode, new_slots, place, prefill, sdpa
from tests.kernels.cases import close, make
from tests.kernels.host_reads import no_host_reads

LENGTHS = [1, 16, 15, 17, 64, 333]
LAYOUTS = {
    "page-1": {"page": 1},
    "page-7": {"page": 7},
    "page-16": {"page": 16},
    "page-512": {"page": 512},
    "flat": {},
    "padded": {"padded": 11},
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def runs(case, backend):
    out = decode(*case.args, case.scale, backend=backend, out=case.poisoned_out())
    close(out, case)
    return out


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_decode_agrees_with_float64(backend, dtype, layout):
    runs(make(LENGTHS, dtype=dtype, **LAYOUTS[layout]), backend)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
@pytest.mark.parametrize("heads", [(3, 3), (8, 2), (7, 1)], ids=str)
def test_head_sizes_and_groups(backend, dim, heads):
    runs(make([1, 50], page=16, dim=dim, heads=heads), backend)
    case = make([9, 50], [9, 20], page=5, dim=dim, heads=heads)
    close(prefill(*case.args, case.queries, case.scale, backend=backend), case)


@pytest.mark.parametrize("backend", ["reference", "cpu", "sdpa"])
@pytest.mark.parametrize("queries", [[1, 16, 40, 90], [1, 3, 17, 1]], ids=["whole", "chunks"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_prefill_agrees_with_float64(backend, queries, layout):
    case = make([1, 16, 40, 90], queries, **LAYOUTS[layout])
    args = (*case.args, case.queries, case.scale)
    if backend == "sdpa" and layout != "flat":
        with pytest.raises(Unsupported, match=r"sdpa prefill: .*contiguous rows, not pages"):
            prefill(*args, backend=backend)
        return
    close(prefill(*args, backend=backend, out=case.poisoned_out()), case)


@pytest.mark.parametrize("even", [True, False])
def test_sdpa_decodes_contiguous_rows_in_place(even):
    case = make([40, 40, 40] if even else [1, 40, 17])
    if even:
        case.layout = Strided(np.array([0, 40, 80]), case.layout.lengths)
        case.k_cache, case.v_cache = torch.randn((2, 120, 2, 64))
    runs(case, "sdpa")


@pytest.mark.parametrize("call", ["even decode", "uneven decode", "prompts", "chunks"])
def test_sdpa_waits_for_no_device_and_draws_no_mask(monkeypatch, call):
    """A mask with grouped heads keeps torch from its flash kernel."""
    lengths = [40, 40, 40] if call == "even decode" else [1, 40, 17]
    queries = {"prompts": [1, 40, 17], "chunks": [1, 7, 3]}.get(call, [1, 1, 1])
    case = make(lengths, queries, heads=(8, 2))
    if call == "even decode":
        case.layout = Strided(np.array([0, 40, 80]), case.layout.lengths)
        case.k_cache, case.v_cache = torch.randn((2, 120, 2, 64))
    expected, rows = case.expected(), place(case.layout, case.k_cache, queries)
    attend, masks = sdpa.scaled_dot_product_attention, []

    def noted(*args, attn_mask=None, **options):
        masks.append(attn_mask)
        return attend(*args, attn_mask=attn_mask, **options)

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", noted)
    with no_host_reads(), torch.inference_mode():
        out = prefill(*case.args[:3], rows, None, case.scale, backend="sdpa")
        if max(queries) == 1:
            out = decode(*case.args[:3], rows, case.scale, backend="sdpa")
    assert (out - expected).abs().max() < 2e-5
    assert all(mask is None or isinstance(mask, CausalBias) for mask in masks)
    assert any(mask is not None for mask in masks) == (call == "chunks")


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=5),
    page=st.one_of(st.none(), st.integers(1, 70)),
    group=st.integers(1, 6),
    kv_heads=st.integers(1, 3),
    dim=st.sampled_from([4, 64, 80, 96]),
    data=st.data(),
)
def test_cpu_kernel_on_any_shape(lengths, page, group, kv_heads, dim, data):
    queries = [data.draw(st.integers(1, n)) for n in lengths]
    seed = data.draw(st.integers(0, 2**20))
    case = make(lengths, queries, page=page, heads=(group * kv_heads, kv_heads), dim=dim, seed=seed)
    out = prefill(*case.args, case.queries, case.scale, backend="cpu", out=case.poisoned_out())
    close(out, case)


def test_cpu_kernel_gives_the_same_bits_for_every_layout():
    lengths = [1, 31, 32, 33, 200]
    flat = make(lengths, heads=(8, 2), dim=128)
    out = runs(flat, "cpu")
    for kind in ({"page": 1}, {"page": 13}, {"page": 64}, {"padded": 10}):
        assert torch.equal(runs(make(lengths, heads=(8, 2), dim=128, **kind), "cpu"), out), kind


def test_cpu_kernel_gives_the_same_bits_alone_in_chunks_and_in_prefill():
    lengths = [70, 100]
    case = make(lengths, [70, 100], page=16)
    whole = prefill(*case.args, case.queries, case.scale, backend="cpu")
    for row, first in ((0, 0), (1, 70)):
        table = case.layout.table[row : row + 1]
        for n in range(1, lengths[row] + 1):
            at = slice(first + n - 1, first + n)
            layout = BlockTable(16, table, np.array([n]))
            one = decode(case.q[at], case.k_cache, case.v_cache, layout, case.scale, backend="cpu")
            assert torch.equal(one, whole[at])
        chunk = slice(first + 20, first + 45)
        layout = BlockTable(16, table, np.array([45]))
        caches = (case.k_cache, case.v_cache)
        some = prefill(case.q[chunk], *caches, layout, [25], case.scale, backend="cpu")
        assert torch.equal(some, whole[chunk])


def test_scores_of_any_size_neither_overflow_nor_vanish():
    for factor in (1e-4, 60.0, 1e4):
        case = make([70, 33], page=16)
        case.q *= factor
        close(decode(*case.args, case.scale, backend="cpu"), case)


def test_a_strided_query_is_read_as_it_is():
    case = make([9, 20], page=4)
    packed = torch.full((2, 12, 64), float("nan"))
    packed[:, 4:8] = case.q
    case.q = packed[:, 4:8]
    runs(case, "cpu")


def test_rows_that_leave_their_memory_are_refused():
    cache = torch.zeros((4, 8, 2, 64))
    with pytest.raises(ValueError, match="leaves its block table"):
        place(BlockTable(8, np.array([[0]]), np.array([9])), cache)
    with pytest.raises(ValueError, match="leaves its block table"):
        place(BlockTable(8, np.array([[4]]), np.array([1])), cache)
    with pytest.raises(ValueError, match="leaves the cache"):
        place(Strided(np.array([30]), np.array([3])), cache)
    with pytest.raises(ValueError, match="from 1 new token to its length"):
        place(Strided(np.array([0]), np.array([3])), cache, [4])


def test_what_no_kernel_computes_is_refused():
    case = make([5, 30], page=8)
    q, k, v, layout = case.args
    apart = torch.zeros((*v.shape[:2], 4, 64))[:, :, :2]
    with pytest.raises(ValueError, match=r"keys lie \(1024, 128, 64, 1\) apart and values \(2048"):
        decode(q, k, apart, layout, case.scale)
    with pytest.raises(ValueError, match=r"a scale is above 0, not -1\.0"):
        decode(q, k, v, layout, -1.0)


def test_the_same_memory_is_seen_as_pages_and_flat():
    case = make([5, 30], page=8)
    expected = case.expected()
    flat = case.k_cache.flatten(0, 1), case.v_cache.flatten(0, 1)
    out = decode(case.q, *flat, case.layout, case.scale, backend="cpu")
    assert (out - expected).abs().max() < 2e-5
    layout = Strided(np.array([8 * case.layout.table[0, 0]]), np.array([5]))
    caches = (case.k_cache, case.v_cache)
    out = decode(case.q[:1], *caches, layout, case.scale, backend="cpu")
    assert (out - expected[:1]).abs().max() < 2e-5


def test_a_batch_may_be_empty():
    layout = Strided(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    assert new_slots(layout, []).tolist() == []
    assert place(layout, torch.zeros((8, 1, 4)), []).num_rows == 0
