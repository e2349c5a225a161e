"""Store, load and copy move exactly the slots they name, and nothing else."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import BlockTable, Strided
from kernels import copy_slots, load, new_slots, store


def numbered(slots, page=None, gap=False):
    """A cache whose slot s holds s everywhere; paged, with gaps of NaN behind pages if asked."""
    if page is None:
        cache = torch.empty((slots, 2, 3))
    else:
        step = page * 6 + 5 * gap
        whole = torch.full((slots // page * step,), float("nan"))
        cache = whole.as_strided((slots // page, page, 2, 3), (step, 6, 3, 1))
    at = torch.arange(slots)
    number = at.float()[:, None, None].expand(-1, 2, 3)
    cache[(at,) if page is None else (at // page, at % page)] = number
    return cache


def read(cache, slots):
    return load(cache, np.arange(slots))[:, 0, 0].tolist()


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([None, 1, 4, 6]), st.booleans())
def test_copies_read_everything_before_they_write(data, page, gap):
    slots = 24
    starts = st.integers(0, slots - 1)
    copies, written = [], set()
    for _ in range(data.draw(st.integers(0, 5))):
        source, target = data.draw(starts), data.draw(starts)
        n = data.draw(st.integers(1, slots - max(source, target)))
        if not written & set(range(target, target + n)):
            written |= set(range(target, target + n))
            copies.append((source, target, n))
    caches = [numbered(slots, page, gap), numbered(slots, page, gap) + 100]
    expected = np.arange(slots, dtype=float)
    for source, target, n in copies:
        expected[target : target + n] = np.arange(source, source + n)
    copy_slots(caches, np.array(copies, dtype=np.int64).reshape(-1, 3))
    assert read(caches[0], slots) == expected.tolist()
    assert read(caches[1], slots) == (expected + 100).tolist()


def test_two_rows_swap_places():
    cache = numbered(8)
    copy_slots([cache], np.array([[0, 4, 4], [4, 0, 4]]))
    assert read(cache, 8) == [4, 5, 6, 7, 0, 1, 2, 3]


def test_store_writes_both_caches_and_no_other_slot():
    k, v = numbered(12, page=4, gap=True), numbered(12)
    new = torch.arange(12.0).reshape(2, 2, 3) + 50
    store(new, -new, k, v, np.array([7, 2]))
    assert torch.equal(load(k, [7, 2]), new)
    assert torch.equal(load(v, [7, 2]), -new)
    for cache in (k, v):
        others = [s for s in range(12) if s not in (7, 2)]
        assert load(cache, others)[:, 1, 2].tolist() == others


def test_a_slot_may_be_written_twice_by_the_same_token():
    k, v = numbered(12, page=4), numbered(12)
    new = torch.arange(18.0).reshape(3, 2, 3) + 50
    store(new, -new, k, v, np.array([7, 2, 2]), writers=torch.tensor([0, 1, 1]))
    assert torch.equal(load(k, [7, 2]), new[:2])
    assert torch.equal(load(v, [7, 2]), -new[:2])


def test_new_slots_are_the_last_positions_of_each_row():
    table = BlockTable(4, np.array([[5, 1, -1], [0, 2, 7]]), np.array([6, 9]))
    assert new_slots(table, [3, 1]).tolist() == [23, 4, 5, 28]
    strided = Strided(np.array([10, 40]), np.array([6, 9]))
    assert new_slots(strided, [2, 1]).tolist() == [14, 15, 48]
