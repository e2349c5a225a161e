"""Free extents over arrays: what `Buddy`, `FirstFit` and `BestFit` take and give.

The free space is kept in a canonical form (sorted by address, fully merged), so that taking an
extent and giving it back restores exactly the state before.  The caller makes sure that `starts` is
wide enough: `holes` never has more entries on a level than extents are held, and one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray

BUDDY, FIRST_FIT, BEST_FIT = range(3)


class Holes(NamedTuple):
    """`starts` [levels, width]: of buddies the holes of size 2 ** level, of fits all on level 0.

    `counts` [levels]; `sizes` [width], of the fits alone; `free` [1] slots; all sorted by address.
    """

    kind: int
    capacity: int
    starts: IntArray
    counts: IntArray
    sizes: IntArray
    free: IntArray


def next_power_of_two(n: int) -> int:
    power = 1
    while power < n:
        power *= 2
    return power


def level_of(size: int) -> int:
    """Return the level of the smallest buddy of at least `size` slots."""
    level = 0
    while 1 << level < size:
        level += 1
    return level


def extent_size(holes: Holes, slots: int) -> int:
    """Return how long an extent for `slots` is, as the pool sees it."""
    return next_power_of_two(slots) if holes.kind == BUDDY else slots


def most(holes: Holes, slots: int) -> int:
    """Return how many extents of `slots` slots an empty pool gives.

    Roots of falling powers of two hold as many whole blocks of one size as their sum does.
    """
    return holes.capacity // extent_size(holes, slots)


def take(holes: Holes, slots: int) -> int:
    """Take an extent of `slots` slots; return where it starts, -1 if no hole is large enough."""
    if holes.kind == BUDDY:
        level = level_of(slots)
        start, size = _take_buddy(holes, level), 1 << level
    else:
        start, size = _take_fit(holes, slots), slots
    if start >= 0:
        holes.free[0] -= size
    return start


def give(holes: Holes, start: int, slots: int) -> None:
    """Give back an extent taken for `slots` slots and merge it with its free neighbours."""
    if holes.kind == BUDDY:
        level = level_of(slots)
        holes.free[0] += 1 << level
        _give_buddy(holes, start, level)
    else:
        holes.free[0] += slots
        _give_fit(holes, start, slots)


# -- binary buddies (Knuth, TAOCP 1, section 2.5); lowest address first ---------------------------
def _take_buddy(holes: Holes, level: int) -> int:
    found = level
    while found < len(holes.counts) and not holes.counts[found]:
        found += 1
    if found >= len(holes.counts):
        return -1
    start = holes.starts[found, 0]
    _remove(holes, found, 0)
    while found > level:
        found -= 1
        buddy = start + (1 << found)
        _insert(holes, found, _place(holes, found, buddy), buddy)
    return start


def _give_buddy(holes: Holes, start: int, level: int) -> None:
    while True:
        buddy = start ^ (1 << level)
        at = _place(holes, level, buddy)
        there = at < holes.counts[level] and holes.starts[level, at] == buddy
        if not there or level + 1 == len(holes.counts):
            _insert(holes, level, _place(holes, level, start), start)
            return
        _remove(holes, level, at)
        start = min(start, buddy)
        level += 1


# -- first fit and best fit ------------------------------------------------------------------------
def _take_fit(holes: Holes, slots: int) -> int:
    n = holes.counts[0]
    at = -1
    for i in range(n):
        size = holes.sizes[i]
        if size >= slots and (at < 0 or size < holes.sizes[at]):
            at = i
            if holes.kind == FIRST_FIT:
                break
    if at < 0:
        return -1
    start = holes.starts[0, at]
    if holes.sizes[at] == slots:
        holes.sizes[at : n - 1] = holes.sizes[at + 1 : n].copy()
        _remove(holes, 0, at)
    else:
        holes.starts[0, at] += slots
        holes.sizes[at] -= slots
    return start


def _give_fit(holes: Holes, start: int, slots: int) -> None:
    n, size, sizes = holes.counts[0], slots, holes.sizes
    at = _place(holes, 0, start)
    if at < n and start + size == holes.starts[0, at]:
        size += sizes[at]
        sizes[at : n - 1] = sizes[at + 1 : n].copy()
        _remove(holes, 0, at)
        n -= 1
    if at and holes.starts[0, at - 1] + sizes[at - 1] == start:
        sizes[at - 1] += size
    else:
        sizes[at + 1 : n + 1] = sizes[at:n].copy()
        sizes[at] = size
        _insert(holes, 0, at, start)


# -- a sorted level --------------------------------------------------------------------------------
def _place(holes: Holes, level: int, start: int) -> int:
    """Return where `start` stands on a level, or would."""
    n = holes.counts[level]
    return np.searchsorted(holes.starts[level, :n], start) if n else 0


def _insert(holes: Holes, level: int, at: int, start: int) -> None:
    n = holes.counts[level]
    if at < n:
        holes.starts[level, at + 1 : n + 1] = holes.starts[level, at:n].copy()
    holes.starts[level, at] = start
    holes.counts[level] = n + 1


def _remove(holes: Holes, level: int, at: int) -> None:
    last = holes.counts[level] - 1
    if at < last:
        holes.starts[level, at:last] = holes.starts[level, at + 1 : last + 1].copy()
    holes.counts[level] = last
