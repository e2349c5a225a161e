"""The Triton prefill: correct in the interpreter, and what becomes of it on a GPU not here."""

import ast
import importlib.util
import inspect
import re
import sys

import pytest
import torch

from kernels import prefill
from tests.kernels.cases import make
from tests.kernels.interpreted import run_interpreted

pytest.importorskip("triton")

from kernels import triton_attention, triton_prefill
from tests.kernels.compiled import MOST_SHARED, compiled

#: shared memory of a block in bytes; 8.6 and 8.9, which run code for 8.0, have less than that
MOST = MOST_SHARED | {80: 99 << 10}
#: new tokens of a row for a large tile and for a small one, with four query heads a KV head
MANY, FEW = 300, 7


def code(dtype="bfloat16", dim=128, capability=90, *, new=MANY, window=None, sinks=False, **layout):
    """Return what a prefill becomes: 32/8 heads, a past, another row beside; see `compiled`."""
    shape = {"heads": (32, 8), "dim": dim, "dtype": getattr(torch, dtype)}
    case = make([400, 40], [new, FEW], **shape, **(layout or {"page": 16}))
    args = (*case.args, case.queries, case.scale)
    more = {"window": window, "sinks": case.with_sinks().sinks if sinks else None}
    call = compiled(lambda: prefill(*args, backend="triton", **more), capability)
    return call["prefill_block"]


def in_the_loop_without_masks(ttgir):
    """The lines of the first loop: blocks of keys that all queries see."""
    return re.search(r"scf\.for.*?\n(.*?)\n +scf\.yield([^\n]*)", ttgir, re.DOTALL).groups()


#: `make test-further` takes these too: the same claims of more code
further = pytest.mark.further


@pytest.mark.parametrize("which", ["not further", pytest.param("further", marks=further)])
def test_it_agrees_with_float64_in_the_interpreter(which):
    said = run_interpreted("tests/kernels/prefill_interpreted.py", which)
    assert " passed" in said
    assert "skipped" not in said


SIXTEEN_BIT = [
    pytest.param(90, {}, id="9.0, 128"),
    pytest.param(90, {"new": FEW}, id="9.0, 128, few"),
    pytest.param(90, {"window": 100}, id="9.0, 128, window"),
    pytest.param(90, {"dim": 64}, id="9.0, 64", marks=further),
    pytest.param(90, {"dim": 80, "padded": 204}, id="9.0, 80 padded", marks=further),
    pytest.param(90, {"dim": 256}, id="9.0, 256", marks=further),
    pytest.param(80, {}, id="8.0, 128"),
    pytest.param(80, {"window": 100}, id="8.0, 128, window", marks=further),
    pytest.param(80, {"dim": 256}, id="8.0, 256", marks=further),
]


@pytest.mark.parametrize(("capability", "which"), SIXTEEN_BIT)
def test_it_multiplies_on_tensor_cores_what_is_copied_ahead_and_does_not_spill(capability, which):
    found = code(capability=capability, **which)
    asynchronous, plain = "wgmma.mma_async" in found.ptx, "mma.sync" in found.ptx
    assert (asynchronous, plain) == ((True, False) if capability == 90 else (False, True))
    # 128 rows of 256 numbers leave no register over: ptxas may put two of them aside.
    assert found.spilled <= (8 if found.registers == 255 and "dim" in which else 0)
    assert found.shared <= MOST[capability]
    assert found.blocks >= 1
    # Keys and values arrive 16 bytes at a time and pass by the registers.
    assert re.search(r"cp\.async\.cg\.shared\.global \[.*\], \[.*\], 0x10", found.ptx)
    assert not re.search(r"ld\.global\S*\.[bu]16", found.ptx), "numbers are read one by one"


@pytest.mark.parametrize(
    ("capability", "dim", "new"),
    [
        (90, 128, MANY),
        (90, 128, FEW),
        (80, 128, MANY),
        pytest.param(90, 256, MANY, marks=further),
    ],
)
def test_blocks_of_keys_are_under_way_while_one_is_multiplied(capability, dim, new):
    found = code(dim=dim, capability=capability, new=new)
    choice = triton_prefill.tiles(torch.bfloat16, dim, capability)
    tile = choice[0 if new == FEW else -1]
    # Hopper's products may still read the block before, so all stages are blocks in memory.
    blocks = tile.stages if capability == 90 else tile.stages - 1
    buffers = rf"local_alloc : \(\) -> !ttg.memdesc<(\d)x{tile.keys}x{dim}xbf16"
    assert set(re.findall(buffers, found.ttgir)) == {str(blocks)}
    loop, _ = in_the_loop_without_masks(found.ttgir)
    assert loop.count("ttg.async_copy_global_to_local") == 2
    # Keys and values of the block after this one may still be on their way.
    assert re.findall(r"ttg\.async_wait.*num = (\d+)", loop)[0] == str(2 * (tile.stages - 2))


@pytest.mark.parametrize("capability", [80, 90])
def test_page_ids_are_loaded_a_block_before_they_are_used(capability):
    loop, handed_on = in_the_loop_without_masks(code(capability=capability).ttgir)
    loads = re.findall(r"(%\S+) = tt\.load ", loop)
    assert len(loads) == 1
    assert loads[0] in re.findall(r"%[\w#]+", handed_on)
    assert len(re.findall(rf"{loads[0]}\b", loop)) == 1, "waited for within the loop"


@pytest.mark.parametrize("capability", [80, 90])
def test_pages_cost_no_block_of_a_multiprocessor(capability):
    paged, flat = code(capability=capability, page=16), code(capability=capability, padded=500)
    assert paged.shared == flat.shared
    assert paged.blocks == flat.blocks
    assert abs(paged.registers - flat.registers) <= 16
    for operation in ("wgmma.mma_async", "mma.sync", "ex2.approx", "cp.async.cg"):
        assert paged.ptx.count(operation) == flat.ptx.count(operation)


@pytest.mark.parametrize("dim", [128, pytest.param(64, marks=further)])
def test_both_tiles_add_up_a_query_s_numbers_alike(dim):
    """A row beside a longer one is computed in the larger tile, with the same bits."""
    products = []
    for new, warps in ((FEW, 4), (MANY, 8)):
        layouts = re.findall(r"#mma\d* = #ttg\.nvidia_mma<(.*)>", code(dim=dim, new=new).ttgir)
        # All warps lie one below the other, so none shares a query's scores with another.
        assert layouts
        assert all(f"warpsPerCTA = [{warps}, 1]" in layout for layout in layouts)
        products.append([layout.replace(f"[{warps}, 1]", "") for layout in layouts])
    assert products[0] == products[1]
    small, large = triton_prefill.tiles(torch.bfloat16, dim, 90)
    assert small.keys == large.keys
    assert small.queries == 16 * small.warps
    assert large.queries == 16 * large.warps


def test_where_tiles_would_differ_there_is_one():
    others = [(torch.float32, 64, 90), (torch.bfloat16, 256, 90)]
    others += [(torch.bfloat16, dim, 80) for dim in (64, 128, 256)]
    for kind in others:
        assert len(triton_prefill.tiles(*kind)) == 1


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("page", [16, pytest.param(7, marks=further)])
def test_exact_numbers_hardly_spill(capability, page):
    """ptxas may spill a word or two to make room for one more block; docs/kernels.md."""
    found = code("float32", capability=capability, page=page)
    assert found.spilled <= 8
    assert found.registers <= 128
    assert found.shared <= MOST[80]


class Without(ast.NodeTransformer):
    """Takes out every statement that depends on `condition`."""

    def __init__(self, condition):
        self.condition, self.out = condition, 0

    def visit_If(self, node):
        if ast.unparse(node.test) == self.condition:
            assert not node.orelse
            self.out += 1
            return None
        return self.generic_visit(node)


@pytest.mark.parametrize(
    ("condition", "statements", "asked"),
    [("WINDOWED", 4, {"window": 100}), ("sinks is not None", 1, {"sinks": True})],
    ids=["window", "sinks"],
)
def test_what_a_call_lacks_leaves_the_code_of_a_kernel_that_does_not_know_it(
    tmp_path, monkeypatch, condition, statements, asked
):
    whole, seen = code(), code(**asked)
    without = Without(condition)
    tree = without.visit(ast.parse(inspect.getsource(triton_prefill)))
    assert without.out == statements
    path = tmp_path / "ignorant.py"
    path.write_text(ast.unparse(tree))
    spec = importlib.util.spec_from_file_location("ignorant", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ignorant", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(triton_attention, "prefill", module.prefill)
    assert code().sass == whole.sass
    assert whole.sass != seen.sass


@pytest.mark.parametrize("dim", [64, pytest.param(128, marks=further)])
@pytest.mark.parametrize("capability", [90, pytest.param(80, marks=further)])
def test_sinks_cost_no_block_of_a_multiprocessor(capability, dim):
    plain, sinks = (
        code(dim=dim, capability=capability, window=128, sinks=s) for s in (False, True)
    )
    assert (sinks.blocks, sinks.shared, sinks.spilled) == (plain.blocks, plain.shared, 0)
    for operation in ("wgmma.mma_async", "mma.sync", "cp.async.cg"):
        assert sinks.ptx.count(operation) == plain.ptx.count(operation)
