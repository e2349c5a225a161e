"""The model of memory executes a grant in the protocol's order and rejects what cannot be done."""

from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Grant
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.conformance import SMALL_GEOMETRY, Violation
from harness.conformance.memory import SlotMemory


def rows(*found):
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def pool(host_tokens=16):
    return SlotMemory(Paged(replace(SMALL_GEOMETRY, host_tokens=host_tokens), block_size=8))


@pytest.fixture
def ranges():
    """Page-group 0 is mapped at (0, 0) and holds 100 and so on; a page-group has 8 slots."""
    memory = SlotMemory(Virtual(SMALL_GEOMETRY, page_size="64KiB"))
    memory.map(Grant(maps=rows((0, 0, 0))))
    memory.write(np.arange(8), np.arange(100, 108))
    return memory


def test_swaps_out_come_before_swaps_in_and_those_before_copies():
    memory = pool()
    memory.write(np.arange(8), np.arange(8))
    grant = Grant(
        swaps_out=rows((0, 8, 4)), swaps_in=rows((16, 8, 4)), copies=rows((16, 24, 2), (0, 26, 2))
    )
    memory.map(grant)
    memory.copy(grant)
    assert memory.values[16:20].tolist() == [0, 1, 2, 3]
    assert memory.values[24:28].tolist() == [0, 1, 0, 1]


def test_what_is_unmapped_is_saved_before_and_what_is_mapped_restored_after(ranges):
    ranges.map(Grant(swaps_out=rows((0, 3, 5)), unmaps=rows((0, 0, 0))))
    assert ranges.host[3:8].tolist() == [100, 101, 102, 103, 104]
    ranges.map(Grant(swaps_in=rows((16, 3, 5)), maps=rows((4, 0, 2))))
    assert ranges.values[16:21].tolist() == [100, 101, 102, 103, 104]


def test_a_page_group_that_is_mapped_nowhere_is_lost_and_one_that_moves_is_not(ranges):
    ranges.map(Grant(unmaps=rows((0, 0, 0)), maps=rows((1, 0, 0))))
    assert ranges.values[0] == 100
    ranges.map_beside(Grant(unmaps=rows((1, 0, 0)), maps=rows((2, 0, 0))))
    assert ranges.mapped == {(1, 0): 0}
    ranges.wait()
    assert ranges.mapped == {(2, 0): 0}
    assert ranges.values[0] == 100
    ranges.map(Grant(unmaps=rows((2, 0, 0))))
    ranges.map(Grant(maps=rows((0, 0, 0))))
    assert (ranges.values[:8] == -1).all()


@pytest.mark.parametrize(
    ("grant", "text"),
    [
        (Grant(swaps_out=rows((0, 12, 5))), "swaps: a swap out beyond the 16 slots"),
        (Grant(swaps_in=rows((0, -1, 1))), "swaps: a swap in beyond the 16 slots"),
        (Grant(swaps_in=rows((498, 0, 4))), "addressing: slots outside the pool"),
        (Grant(swaps_out=rows((0, 0, 0))), "swaps: a swap out of no slots"),
        (Grant(swaps_out=rows((0, 0, 8), (8, 7, 8))), "swaps: two swaps out write one host slot"),
        (Grant(swaps_in=rows((0, 0, 8), (7, 8, 8))), "swaps: two swaps in write one slot"),
    ],
)
def test_a_pool_rejects_swaps_that_cannot_be(grant, text):
    with pytest.raises(Violation, match=text):
        pool().map(grant)


@pytest.mark.parametrize(
    "grant",
    [
        Grant(swaps_out=rows((8, 0, 8))),
        Grant(swaps_in=rows((8, 0, 8)), maps=rows((0, 1, 2))),
        Grant(swaps_in=rows((0, 0, 8)), unmaps=rows((0, 0, 0))),
    ],
)
def test_ranges_reject_swaps_where_nothing_is_mapped(ranges, grant):
    with pytest.raises(Violation, match="which are mapped nowhere"):
        ranges.map(grant)
