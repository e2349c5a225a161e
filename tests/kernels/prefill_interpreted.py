"""The prefill kernel through Triton's interpreter; run by test_prefill in a process of its own.

Few programs and few blocks: the interpreter takes a tenth of a second for each.
"""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from allocators.base import BlockTable
from kernels import prefill
from tests.kernels.cases import close, make

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_prefill.py"

FEW = {
    "page-1": {"page": 1, "heads": (2, 2)},
    "page-7": {"page": 7, "heads": (4, 2), "dim": 80},
    "page-16": {"page": 16, "heads": (8, 1), "dim": 128},
    "page-256": {"page": 256, "heads": (3, 1)},
    "flat": {"heads": (4, 1)},
    "padded-204": {"padded": 204, "heads": (4, 1), "dim": 80},
}
further = pytest.mark.further
#: each run has these; `make test-further` the others
NEAR = ("page-7", "flat", "padded-204")


def layouts(*some):
    return [pytest.param(name, marks=[] if name in some else [further]) for name in FEW]


#: one token, exact multiples of blocks and pages, chunks with a past, and a row over page ends
LENGTHS, QUERIES = [1, 64, 33, 270], [1, 64, 33, 9]


def run(case, **options):
    args = (*case.args, case.queries, case.scale)
    options |= {"window": case.window, "sinks": case.sinks, "out": case.poisoned_out()}
    return prefill(*args, backend="triton", **options)


@pytest.mark.parametrize("layout", layouts("page-1", *NEAR))
def test_exact_numbers(layout):
    case = make(LENGTHS, QUERIES, **FEW[layout])
    close(run(case), case)


@pytest.mark.parametrize("layout", layouts("page-256", *NEAR))
def test_half_precision_in_tiles_of_tensor_cores(layout):
    case = make([1, 64, 200], [1, 64, 75], dtype=torch.bfloat16, **FEW[layout])
    close(run(case), case)


@pytest.mark.parametrize(
    ("layout", "window"),
    [
        pytest.param(layout, window, marks=[] if layout == "page-7" or window == 65 else [further])
        for layout in NEAR
        for window in (1, 64, 65, 100)
    ],
)
def test_what_lies_behind_the_window_is_not_read(layout, window):
    case = make([30, 270], [30, 75], dtype=torch.float16, **FEW[layout]).look_through(window)
    close(run(case), case)


@pytest.mark.parametrize(
    ("layout", "window", "dtype"),
    [
        ("page-7", None, torch.float32),
        ("page-7", 1, torch.float16),
        ("flat", 65, torch.float16),
        ("flat", None, torch.bfloat16),
    ],
    ids=str,
)
def test_sinks_take_part_in_every_softmax(layout, window, dtype):
    case = make([30, 110], [30, 40], dtype=dtype, **FEW[layout]).with_sinks()
    case = case if window is None else case.look_through(window)
    found = run(case)
    close(found, case)
    case.sinks = None
    assert (run(case) - found).abs().amax((1, 2)).min() > 1e-3, "sinks make a difference each time"


def test_a_sink_that_takes_nothing_changes_no_bit():
    case = make([70, 130], [70, 20], page=7, dtype=torch.float16)
    for window in (None, 33):
        case.window, case.sinks = window, None
        whole, case.sinks = run(case), torch.full((4,), float("-inf"), dtype=torch.float16)
        assert torch.equal(run(case), whole)


def test_exact_numbers_through_a_window():
    case = make([30, 130], [30, 19], **FEW["page-7"]).look_through(33)
    close(run(case), case)


def test_pages_wholly_behind_the_window_need_not_exist():
    case = make([150], [9], page=16, dtype=torch.float16).look_through(40)
    table = case.layout.table.copy()
    table[:, : (150 - 9 - 40 + 1) // 16] = -1
    case.layout = replace(case.layout, table=table)
    close(run(case), case)


def test_a_window_as_long_as_the_row_changes_no_bit():
    case = make([70, 200], [70, 20], page=7, dtype=torch.float16)
    whole, case.window = run(case), 200
    assert torch.equal(run(case), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_row_has_the_same_bits_alone_and_beside_longer_ones(dtype):
    """Alone it is computed in the small tile where there is one."""
    case = make([140, 230], [9, 100], page=7, dtype=dtype).with_sinks()
    both = run(case)[:9]
    q, k, v, layout = case.args
    layout = BlockTable(7, layout.table[:1], layout.lengths[:1])
    alone = prefill(q[:9], k, v, layout, [9], case.scale, backend="triton", sinks=case.sinks)
    assert torch.equal(alone, both)


def test_chunks_of_a_prompt_have_the_bits_of_the_whole():
    case = make([200], [200], page=7, dtype=torch.float16).with_sinks()
    whole, (q, k, v, layout) = run(case), case.args
    for first, last in ((0, 50), (50, 51), (51, 200)):
        chunk = BlockTable(7, layout.table, np.array([last]))
        new, past = q[first:last], [last - first]
        found = prefill(new, k, v, chunk, past, case.scale, backend="triton", sinks=case.sinks)
        assert torch.equal(found, whole[first:last])


def test_layouts_have_the_same_bits():
    first, *others = (
        run(make(LENGTHS, QUERIES, dtype=torch.float16, **layout))
        for layout in ({"page": 1}, {"page": 16}, {}, {"padded": 204})
    )
    assert all(torch.equal(first, other) for other in others)


def test_queries_may_be_a_view_of_a_wider_product():
    case = make([40], [40], page=16, heads=(4, 2))
    wide = torch.full((40, 8, 64), float("nan"))
    wide[:, 2:6] = case.q
    case.q = wide[:, 2:6]
    close(run(case), case)
