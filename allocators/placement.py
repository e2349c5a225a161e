"""Placement of contiguous extents in the pool: buddy, first fit, best fit.

Each keeps its free space in a canonical form (sorted, fully merged), so that taking an extent and
giving it back restores exactly the state before: a refusal can be undone without a trace.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Extent(NamedTuple):
    """`size` slots from `start` on, as the pool sees them (a buddy's size is a power of two)."""

    start: int
    size: int


class Placement(Protocol):
    free: int

    def take(self, slots: int) -> Extent | None:
        """Take an extent of at least `slots` slots, or return None if no hole is large enough."""

    def give(self, extent: Extent) -> None:
        """Give an extent back and merge it with its free neighbours."""

    def most(self, slots: int) -> int:
        """Return how many extents of `slots` slots an empty pool gives."""


def next_power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


class Buddy:
    """Binary buddies (Knuth, TAOCP 1, section 2.5); lowest address first.

    A pool whose size is no power of two is a row of roots of falling powers of two, so each
    block's address is a multiple of its size and its buddy is `start ^ size`.
    """

    def __init__(self, capacity: int) -> None:
        self.free = self._capacity = capacity
        self._holes: dict[int, list[int]] = {1 << i: [] for i in range(capacity.bit_length())}
        start = 0
        for size in sorted(self._holes, reverse=True):
            if capacity & size:
                self._holes[size].append(start)
                start += size

    def take(self, slots: int) -> Extent | None:
        size = next_power_of_two(slots)
        found = next((s for s in self._holes if s >= size and self._holes[s]), None)
        if found is None:
            return None
        start = self._holes[found].pop(0)
        while found > size:
            found >>= 1
            bisect.insort(self._holes[found], start + found)
        self.free -= size
        return Extent(start, size)

    def give(self, extent: Extent) -> None:
        start, size = extent
        self.free += size
        while True:
            holes, buddy = self._holes[size], start ^ size
            at = bisect.bisect_left(holes, buddy)
            if size << 1 not in self._holes or at == len(holes) or holes[at] != buddy:
                bisect.insort(holes, start)
                return
            holes.pop(at)
            start, size = min(start, buddy), size << 1

    def most(self, slots: int) -> int:
        # Roots of falling powers of two hold as many whole blocks of one size as their sum does.
        return self._capacity // next_power_of_two(slots)


class _Holes:
    """Free extents by address, merged; which hole serves a request is the subclass's choice."""

    def __init__(self, capacity: int) -> None:
        self.free = self._capacity = capacity
        self._starts = [0]
        self._sizes = [capacity]

    def _choose(self, slots: int) -> int | None:
        raise AssertionError("a placement chooses its hole")

    def take(self, slots: int) -> Extent | None:
        at = self._choose(slots)
        if at is None:
            return None
        start = self._starts[at]
        if self._sizes[at] == slots:
            del self._starts[at], self._sizes[at]
        else:
            self._starts[at] += slots
            self._sizes[at] -= slots
        self.free -= slots
        return Extent(start, slots)

    def give(self, extent: Extent) -> None:
        start, size = extent
        self.free += size
        at = bisect.bisect_left(self._starts, start)
        if at < len(self._starts) and start + size == self._starts[at]:
            size += self._sizes[at]
            del self._starts[at], self._sizes[at]
        if at and self._starts[at - 1] + self._sizes[at - 1] == start:
            self._sizes[at - 1] += size
        else:
            self._starts.insert(at, start)
            self._sizes.insert(at, size)

    def most(self, slots: int) -> int:
        return self._capacity // slots


class FirstFit(_Holes):
    """The hole with the lowest address that is large enough."""

    def _choose(self, slots: int) -> int | None:
        return next((i for i, size in enumerate(self._sizes) if size >= slots), None)


class BestFit(_Holes):
    """The smallest hole that is large enough, the lowest address among equals."""

    def _choose(self, slots: int) -> int | None:
        fitting = [(size, i) for i, size in enumerate(self._sizes) if size >= slots]
        return min(fitting)[1] if fitting else None


PLACEMENTS: dict[str, Callable[[int], Placement]] = {
    "buddy": Buddy,
    "first_fit": FirstFit,
    "best_fit": BestFit,
}
