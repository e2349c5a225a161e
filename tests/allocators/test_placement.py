"""Placements against obvious slow models, and the property that makes refusals free of trace."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.placement import PLACEMENTS

#: positive: take that many slots; else: give back the extent at this index among those held
OPERATIONS = st.lists(st.integers(-8, 40).filter(bool), max_size=60)
CAPACITIES = st.integers(1, 200)
SLOW = settings(max_examples=150, derandomize=True, deadline=None, database=None)


class SlowBuddy:
    """Tries every aligned address; a pool of any size is a row of power-of-two roots."""

    def __init__(self, capacity):
        self.roots, start = [], 0
        for bit in reversed(range(capacity.bit_length())):
            if capacity >> bit & 1:
                self.roots.append((start, 1 << bit))
                start += 1 << bit
        self.held = set()

    def take(self, slots):
        size = 1
        while size < slots:
            size *= 2
        holes = [(hole, start) for start, hole in self._holes() if hole >= size]
        if not holes:
            return None
        start = min(holes)[1]
        self.held.add((start, size))
        return start, size

    def give(self, extent):
        self.held.remove(tuple(extent))

    def _holes(self):
        """The largest free aligned blocks: split each root until a part is all free or all held."""
        parts, found = list(self.roots), []
        while parts:
            start, size = parts.pop()
            if (start, size) in self.held:
                continue
            if any(start <= other < start + size for other, _ in self.held):
                half = size // 2
                parts += [(start, half), (start + half, half)]
            else:
                found.append((start, size))
        return found


class SlowFit:
    """A bitmap; `best` prefers the smallest gap."""

    def __init__(self, capacity, best):
        self.used, self.best = [False] * capacity, best

    def take(self, slots):
        gaps, start = [], None
        for at, used in enumerate([*self.used, True]):
            if not used and start is None:
                start = at
            elif used and start is not None:
                gaps.append((at - start, start))
                start = None
        gaps = [gap for gap in gaps if gap[0] >= slots]
        if not gaps:
            return None
        start = min(gaps)[1] if self.best else min(start for _, start in gaps)
        self.used[start : start + slots] = [True] * slots
        return start, slots

    def give(self, extent):
        start, size = extent
        self.used[start : start + size] = [False] * size


SLOW_MODELS = {
    "buddy": SlowBuddy,
    "first_fit": lambda capacity: SlowFit(capacity, best=False),
    "best_fit": lambda capacity: SlowFit(capacity, best=True),
}


@pytest.mark.parametrize("placement", PLACEMENTS)
@given(capacity=CAPACITIES, operations=OPERATIONS)
@SLOW
def test_every_extent_is_that_of_the_slow_model(placement, capacity, operations):
    fast, slow = PLACEMENTS[placement](capacity), SLOW_MODELS[placement](capacity)
    held = []
    for operation in operations:
        if operation > 0:
            extent = fast.take(operation)
            assert extent == slow.take(operation)
            if extent is not None:
                held.append(extent)
        elif held:
            extent = held.pop(-operation % len(held))
            fast.give(extent)
            slow.give(extent)
        assert fast.free == capacity - sum(extent.size for extent in held)


@pytest.mark.parametrize("placement", PLACEMENTS)
@given(
    capacity=CAPACITIES,
    operations=OPERATIONS,
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
)
@SLOW
def test_taking_and_giving_back_in_any_order_restores_the_state(
    placement, capacity, operations, sizes, order
):
    pool, held = PLACEMENTS[placement](capacity), []
    for operation in operations:
        if operation > 0:
            held += filter(None, [pool.take(operation)])
        elif held:
            pool.give(held.pop(-operation % len(held)))
    before = pool.spaces(), pool.free
    taken = [extent for size in sizes if (extent := pool.take(size)) is not None]
    order.shuffle(taken)
    for extent in taken:
        pool.give(extent)
    assert (pool.spaces(), pool.free) == before


@pytest.mark.parametrize("placement", PLACEMENTS)
@given(capacity=CAPACITIES, slots=st.integers(1, 220))
@SLOW
def test_an_empty_pool_gives_as_many_extents_as_it_says(placement, capacity, slots):
    pool, taken = PLACEMENTS[placement](capacity), 0
    most = pool.most(slots)
    while pool.take(slots) is not None:
        taken += 1
    assert taken == most
