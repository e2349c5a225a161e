"""The same on a GPU, where there is one: Triton, flash, SDPA and CUDA's virtual memory."""

import numpy as np
import pytest
import torch

from allocators.base import BlockTable, Demand, Prompt, Unsupported
from allocators.virtual import Virtual
from kernels import copy_slots, decode, load, prefill, probe, store
from kernels.memory import backing_for
from kernels.memory.virtual_cuda import probe_vmm
from tests.kernels.cases import close, make
from tests.kernels.memory.cases import execute, geometry, read_values, write_values
from tests.kernels.memory.expected import expected_bytes

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

LAYOUTS = {
    "page-1": {"page": 1},
    "page-7": {"page": 7},
    "page-256": {"page": 256},
    "flat": {},
    "padded": {"padded": 11},
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("backend", ["reference", "triton", "flash", "sdpa"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
def test_attention_agrees_with_float64_or_is_refused_with_a_reason(backend, dtype, layout, dim):
    lengths = [1, 16, 257, 1000]
    case = make(lengths, dtype=dtype, dim=dim, heads=(8, 2), device="cuda", **LAYOUTS[layout])
    queries = [1, 9, 257, 30]
    chunk = make(lengths, queries, dtype=dtype, dim=dim, device="cuda", **LAYOUTS[layout])
    try:
        out = decode(*case.args, case.scale, backend=backend, out=case.poisoned_out())
    except Unsupported as refusal:
        pytest.skip(str(refusal))
    close(out, case)
    close(prefill(*chunk.args, chunk.queries, chunk.scale, backend=backend), chunk)


@pytest.mark.parametrize("backend", ["reference", "triton", "flash", "sdpa"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [1, 100, 600])
def test_a_window_is_seen_and_nothing_behind_it(backend, layout, window):
    kind = {"dtype": torch.bfloat16, "dim": 128, "heads": (8, 2), "device": "cuda"}
    for queries in (None, [1, 9, 257, 30]):
        case = make([1, 16, 257, 1000], queries, **kind, **LAYOUTS[layout])
        case.look_through(window)
        if backend == "flash":
            # Its kernels multiply what lies behind the window, within a block, by zero.
            for cache in (case.k_cache, case.v_cache):
                cache.nan_to_num_(0.0)
        options = {"backend": backend, "out": case.poisoned_out(), "window": window}
        try:
            if queries is None:
                close(decode(*case.args, case.scale, **options), case)
            else:
                close(prefill(*case.args, case.queries, case.scale, **options), case)
        except Unsupported as refusal:
            pytest.skip(str(refusal))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [None, 128, 600])
def test_sinks_count_once_in_a_row_of_any_length(dtype, layout, window):
    """Rows of one split and of seventeen, which are joined in two lots."""
    kind = {"dtype": dtype, "dim": 64, "heads": (16, 2), "device": "cuda"}
    for lengths, queries in (([1, 257, 33000], None), ([30, 257, 1000], [30, 9, 300])):
        case = make(lengths, queries, **kind, **LAYOUTS[layout]).with_sinks()
        case = case if window is None else case.look_through(window)
        options = {"backend": "triton", "window": window, "sinks": case.sinks}
        if queries is None:
            close(decode(*case.args, case.scale, out=case.poisoned_out(), **options), case)
        else:
            args = (*case.args, case.queries, case.scale)
            close(prefill(*args, out=case.poisoned_out(), **options), case)


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_a_prefilled_row_has_the_same_bits_alone_in_a_batch_and_in_chunks(dtype, dim, window):
    """Alone it may be computed in another tile; Triton's interpreter cannot show that."""
    case = make([140, 900], [9, 600], dtype=dtype, dim=dim, page=16, heads=(8, 2), device="cuda")
    q, k, v, layout = case.args
    more = {"backend": "triton", "window": window}
    both = prefill(*case.args, case.queries, case.scale, **more)
    first, second = (
        BlockTable(16, layout.table[i : i + 1], layout.lengths[i:][:1]) for i in (0, 1)
    )
    assert torch.equal(prefill(q[:9], k, v, first, [9], case.scale, **more), both[:9])
    chunk = BlockTable(16, second.table, np.array([307]))
    assert torch.equal(prefill(q[9:16], k, v, chunk, [7], case.scale, **more), both[9:16])
    assert torch.equal(prefill(q[16:], k, v, second, [593], case.scale, **more), both[16:])


def test_triton_moves_slots():
    cache = torch.full((3, 4, 2, 80), float("nan"), device="cuda")
    new = torch.randn((2, 2, 80), device="cuda")
    store(new, new, cache, cache.clone(), np.array([6, 1]), backend="triton")
    copy_slots([cache], np.array([[6, 1, 1], [1, 6, 1]]), backend="triton")
    assert torch.equal(load(cache, [1, 6]), new)
    assert probe("triton", "cuda", "float32", 80, 4).ok


def test_device_memory_agrees_with_the_allocator():
    if not probe_vmm().ok:
        pytest.skip(probe_vmm().reason)
    allocator = Virtual(geometry(16, "2MiB", layers=2), page_size="2MiB")
    with backing_for(allocator, dtype=torch.float32, device="cuda") as backing:
        values, rows = {}, np.arange(4)
        for row in rows.tolist():
            n = 20 + 7 * row
            grant = allocator.admit(np.array([row]), Prompt(n), Demand(n, 20))
            if grant is None:
                break
            execute(backing, allocator, grant)
            values[row] = np.arange(n) + 1000 * row
            write_values(backing, allocator.layout(np.array([row])), values[row])
            assert backing.resident_bytes() == expected_bytes(allocator)
        live = np.array(list(values))
        found = read_values(backing, allocator.layout(live))
        for row, held in zip(live.tolist(), found, strict=True):
            assert held.tolist() == values[row].tolist()
