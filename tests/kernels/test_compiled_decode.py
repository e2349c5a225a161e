"""Decode as compiled for GPUs that are not here: what it keeps on chip, and what it waits for."""

import re
from dataclasses import replace

import pytest
import torch

triton = pytest.importorskip("triton")

from kernels import decode, place  # noqa: E402
from tests.kernels.cases import make  # noqa: E402
from tests.kernels.compiled import compiled  # noqa: E402
from tests.kernels.fake_triton import launches  # noqa: E402

CAPABILITIES = (80, 90)
PAGED = {
    "page-1": {"page": 1},
    "page-16": {"page": 16},
    "page-256": {"page": 256},
    "padded-204": {"padded": 204},
}
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def further(*values):
    """Parameters that only `make test-further` takes: the same claims of more code."""
    return [pytest.param(value, marks=pytest.mark.further) for value in values]


PAGES = ["page-16", "padded-204", *further("page-1", "page-256")]


def split(capability, layout, dtype=BF16, dim=128, window=None):
    """The kernel that walks a row, with 32 query heads on 8 KV heads."""
    case = make([300, 1000], heads=(32, 8), dim=dim, dtype=dtype, **layout)
    call = (*case.args, case.scale)
    found = compiled(lambda: decode(*call, backend="triton", window=window), capability)
    assert not found["decode_reduce"].spilled
    return found["decode_split"]


def loop(kernel):
    """The loop over blocks in Triton's GPU dialect."""
    text = kernel.ttgir
    start = text.index("scf.for")
    return text[start : text.index("\n", text.index("scf.yield", start))]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("layout", [{}, PAGED["page-16"]], ids=["flat", "page-16"])
def test_two_blocks_are_on_their_way_while_one_is_computed(capability, layout):
    kernel = split(capability, layout)
    block = 64 * 128 * 2
    buffers = re.findall(
        r"ttg\.local_alloc : \(\) -> !ttg\.memdesc<(\d+)x64x128xbf16", kernel.ttgir
    )
    assert buffers == ["2", "2"], "keys and values have two buffers each"
    # The query and the weights of a block are what else is on chip.
    assert 4 * block < kernel.shared <= 4 * block + (6 << 10)
    # Of the two copies of each block, those of the next may be under way when one is taken.
    assert re.findall(r"async_wait .*?num = (\d+)", loop(kernel)) == ["2"]
    assert "cp.async.wait_group 0x2" in kernel.ptx or "cp.async.wait_group \t2" in kernel.ptx
    assert kernel.ptx.count("cp.async.cg.shared.global") >= 3 * 2 * 8
    assert not re.search(r"ld\.global\S*\.[bu]16", kernel.ptx), "numbers are read one by one"


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("layout", PAGES)
def test_no_load_waits_for_the_page_table(capability, layout):
    """What a turn reads of the table is used by the next turn and by nothing in its own."""
    body = loop(split(capability, PAGED[layout]))
    loads = re.findall(r"(%\w+) = tt\.load ", body)
    assert len(loads) == 1, "the table is the one thing that is loaded into registers"
    uses = [line for line in body.splitlines() if re.search(rf"{loads[0]}\b", line)]
    assert len(uses) == 2
    assert "scf.yield" in uses[1]
    # It is on its way before the copies of the turn are, and the next turn begins by waiting.
    assert body.index("tt.load") < body.index("ttg.async_copy_global_to_local")
    assert body.index("ttg.async_wait") < body.index("tt.load")


def test_contiguous_rows_look_nothing_up():
    assert "tt.load" not in loop(split(90, {}))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("layout", PAGES)
@pytest.mark.parametrize("dim", [128, *further(256)])
def test_rows_in_pages_have_the_registers_of_contiguous_ones(capability, dim, layout):
    flat, paged = (split(capability, kind, dim=dim) for kind in ({}, PAGED[layout]))
    assert (paged.given_registers, paged.spilled) == (flat.given_registers, 0)
    assert (paged.shared, paged.blocks) == (flat.shared, flat.blocks)
    assert flat.blocks == {80: 2, 90: 3}[capability]
    assert flat.spilled == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(
    "kind",
    [(FP32, 128), *further((BF16, 64), (BF16, 80), (FP16, 128), (FP32, 64), (FP32, 256))],
    ids=lambda kind: f"{kind[0]}-{kind[1]}".removeprefix("torch."),
)
def test_nothing_is_spilled(capability, kind):
    flat, paged = (split(capability, layout, *kind) for layout in ({}, PAGED["page-16"]))
    assert flat.spilled == paged.spilled == 0
    assert flat.blocks == paged.blocks


@pytest.mark.further
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32], ids=str)
@pytest.mark.parametrize("dim", [64, 80, 128, 256])
def test_pages_of_204_hardly_spill(capability, dtype, dim):
    """The least that ptxas spills where it does, in float32 alone."""
    padded = split(capability, PAGED["padded-204"], dtype, dim)
    assert padded.spilled <= (8 if dtype == FP32 else 0)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("layout", [PAGED["page-16"], *further({})], ids=["page-16", "flat"])
def test_a_window_costs_nothing_where_there_is_none(capability, layout):
    """It is not even read; where there is one, the loop has what it had before."""
    whole, windowed = (split(capability, layout, window=window) for window in (None, 128))

    def parameters(kernel):
        return set(re.findall(r"ld\.param\S*\s+\S+, \[(\w+_param_\d+)\]", kernel.ptx))

    assert len(parameters(windowed)) == len(parameters(whole)) + 1
    assert (windowed.given_registers, windowed.spilled) == (whole.given_registers, 0)
    assert windowed.shared == whole.shared


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_sinks_cost_the_walk_over_a_row_nothing(capability):
    """They are no matter of it: splits are joined with them.  A kernel without reads none."""
    case = make([300, 1000], heads=(64, 8), dim=64, dtype=BF16, page=16).with_sinks()
    plain, sinks = (
        compiled(lambda s=s: decode(*case.args, case.scale, backend="triton", sinks=s), capability)
        for s in (None, case.sinks)
    )
    assert plain["decode_split"].cubin == sinks["decode_split"].cubin
    join = sinks["decode_reduce"]
    assert (join.blocks, join.spilled) == (plain["decode_reduce"].blocks, 0)
    params = [
        len(re.findall(r"\.param \.", found["decode_reduce"].ptx)) for found in (plain, sinks)
    ]
    assert params[1] == params[0] + 1


def test_what_changes_from_step_to_step_compiles_nothing():
    """Lengths, and with them splits and the width of the table, rows, and the size of a window."""
    with launches() as seen:
        for window in (None, 1, 100, 4096):
            for pages in (1, 2, 16, 17, 300):
                case = make([7, 16 * pages], page=16, heads=(8, 2))
                rows = place(case.layout, case.k_cache)
                for longest in (16 * pages, 1 << 14, 1 << 20):
                    rows = replace(rows, max_length=longest, derived={})
                    caches = case.k_cache, case.v_cache
                    decode(case.q, *caches, rows, 1.0, backend="triton", window=window)
    kinds = [name for name, *_ in seen.compiled]
    assert sorted(kinds) == ["decode_reduce", "decode_reduce", "decode_split", "decode_split"]


def test_programs_of_one_row_s_heads_start_side_by_side():
    case = make([7, 1100, 9], page=16, heads=(8, 2))
    with launches() as seen:
        decode(*case.args, case.scale, backend="triton")
    grids = {name: grid for name, grid, _ in seen.launched}
    assert grids == {"decode_split": (2, 3, 3), "decode_reduce": (8, 3, 1)}
