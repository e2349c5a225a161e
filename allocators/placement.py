"""Placement of contiguous extents in the pool: buddy, first fit, best fit.

What is taken and given back, and where, is said by `allocators.rules.extents`; here are its arrays,
which grow as holes do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from allocators.rules import extents
from allocators.rules.extents import BEST_FIT, BUDDY, FIRST_FIT, Holes, next_power_of_two

__all__ = ["PLACEMENTS", "Extent", "FirstFit", "Placement", "next_power_of_two"]

FIRST_WIDTH = 16


class Extent(NamedTuple):
    """`size` slots from `start` on, as the pool sees them (a buddy's size is a power of two)."""

    start: int
    size: int


class Placement:
    """The free space of a pool.

    A buddy pool whose size is no power of two is a row of roots of falling powers of two, so each
    block's address is a multiple of its size and its buddy is `start ^ size`.
    """

    def __init__(self, kind: int, capacity: int) -> None:
        levels = capacity.bit_length() if kind == BUDDY else 1
        starts = np.zeros((levels, FIRST_WIDTH), dtype=np.int64)
        sizes = np.zeros(FIRST_WIDTH, dtype=np.int64)
        counts = np.ones(levels, dtype=np.int64)
        sizes[0] = capacity
        if kind == BUDDY:
            counts[:] = [capacity >> level & 1 for level in range(levels)]
            starts[:, 0] = [capacity >> level + 1 << level + 1 for level in range(levels)]
        self.holes = Holes(kind, capacity, starts, counts, sizes, np.array([capacity]))
        self._spare = 0  # for how many calls it is known that each level has room for a hole more

    @property
    def free(self) -> int:
        return int(self.holes.free[0])

    def take(self, slots: int) -> Extent | None:
        """Take an extent of at least `slots` slots, or return None if no hole is large enough."""
        self._widen()
        start = int(extents.take(self.holes, slots))
        return None if start < 0 else Extent(start, extents.extent_size(self.holes, slots))

    def give(self, extent: Extent) -> None:
        """Give an extent back and merge it with its free neighbours."""
        self._widen()
        extents.give(self.holes, extent.start, extent.size)

    def most(self, slots: int) -> int:
        """Return how many extents of `slots` slots an empty pool gives."""
        return extents.most(self.holes, slots)

    def reserve(self, width: int) -> None:
        """Make room for so many holes on each level."""
        more = width - len(self.holes.sizes)
        if more > 0:
            starts = np.pad(self.holes.starts, ((0, 0), (0, more)))
            self.holes = self.holes._replace(
                starts=starts, sizes=np.pad(self.holes.sizes, (0, more))
            )

    def spaces(self) -> list[Extent]:
        """Return the holes, by size and address of buddies, else by address."""
        holes, found = self.holes, []
        for level, count in enumerate(holes.counts.tolist()):
            starts = holes.starts[level, :count].tolist()
            one_size = [1 << level] * count
            sizes = one_size if holes.kind == BUDDY else holes.sizes[:count].tolist()
            found += [Extent(*hole) for hole in zip(starts, sizes, strict=True)]
        return found

    def _widen(self) -> None:
        if not self._spare:
            most = int(self.holes.counts.max())
            if most + 1 >= len(self.holes.sizes):
                self.reserve(2 * len(self.holes.sizes))
            self._spare = len(self.holes.sizes) - 1 - most
        self._spare -= 1


Buddy = partial(Placement, BUDDY)
FirstFit = partial(Placement, FIRST_FIT)
BestFit = partial(Placement, BEST_FIT)

PLACEMENTS: dict[str, Callable[[int], Placement]] = {
    "buddy": Buddy,
    "first_fit": FirstFit,
    "best_fit": BestFit,
}
