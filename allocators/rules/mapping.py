"""Virtual ranges over arrays: what each is to hold, how that is mapped, and by whom.

Rules of one range are the classes' too.  The order in which promised page-groups are mapped, and
in which the thread maps ahead, stands here a second time, without the grants that say what was
mapped where: it is that of `allocators.virtual.ranges` and `background`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import pages as moves
from allocators.rules.answers import StepMaps
from allocators.rules.pages import Number, Pages

#: of vAttention's code: how many tokens its thread looks ahead, and after how many page-groups it
#: stops (vattention.cu, EAGER_NUM_STEPS and EAGER_NUM_KVBLOCKS)
LOOK_AHEAD_TOKENS = 9
MOST_AHEAD = 2


class VirtualArrays(NamedTuple):
    """The state of a `Virtual`, shared with it; `held` and `told` are lengths of ranges."""

    pages: Pages
    length: IntArray
    active: np.ndarray
    range_of: IntArray
    held: IntArray
    told: IntArray
    alias: bool
    deferred: bool
    threaded: bool
    tail_tokens: int
    group_bytes: int
    calls_per_group: int
    bytes_per_token: int
    capacity_bytes: int


# -- one range ---------------------------------------------------------------------------------
def needed(length: Number, page_tokens: int) -> Number:
    """Return the page-groups that a range of this length needs."""
    return (length + (page_tokens - 1)) // page_tokens


def short(count: Number, length: Number, tokens: int, page_tokens: int, width: int) -> Number:
    """Return the page-groups that a live range lacks to grow by so many tokens.

    None if it is idle, or has mapped all that it can.
    """
    lack = np.maximum(needed(length + tokens, page_tokens) - count, 0)
    return lack * ((length > 0) & (count < width))


def written_in_tail(count: Number, length: Number, final: Number, width: int, t: int) -> Number:
    """Return the slots behind the whole tokens of a range's page-groups that will yet be written.

    They have memory from the moment a range has mapped all that it can.
    """
    return np.maximum(final - np.maximum(length, width * t), 0) * (count == width)


# -- how much there is -------------------------------------------------------------------------
def surely_left(num_page_groups: int, held: IntArray, page_tokens: int) -> int:
    """Return how many page-groups may be promised at least, without a look at each range.

    A range needs less than one beyond its tokens' worth.
    """
    return num_page_groups - len(held) - needed(held.sum(), page_tokens)


def has(memory: VirtualArrays, page_groups: int) -> bool:
    """Say whether so many may be promised."""
    pages = memory.pages
    least = surely_left(len(pages.ref), memory.held, pages.page_tokens)
    return page_groups <= least or page_groups <= available(memory)


def available(memory: VirtualArrays) -> int:
    """Return the page-groups that may be promised: free ones and all excess, less what is."""
    pages, total = memory.pages, memory.pages.ends[1]
    for vrange in range(len(memory.held)):
        total += pages.count[vrange]
        if memory.held[vrange]:  # most ranges are idle, and a division is what takes time here
            total -= needed(memory.held[vrange], pages.page_tokens)
    return total


def idle_page_groups(memory: VirtualArrays) -> int:
    """Return the page-groups that only idle ranges have mapped."""
    idle = 0
    for vrange in range(len(memory.held)):
        if not memory.held[vrange]:
            idle += memory.pages.count[vrange]
    return idle


# -- taking a range ----------------------------------------------------------------------------
def acquire(memory: VirtualArrays, tokens: int) -> int:
    """Take an idle range: the first or, if that suffices, the one with the fewest that do."""
    count, need, best = memory.pages.count, needed(tokens, memory.pages.page_tokens), -1
    for vrange in range(len(memory.held)):
        if memory.held[vrange]:
            continue
        if best < 0:
            best = vrange
            if count[best] < need:
                break
        elif need <= count[vrange] < count[best]:
            best = vrange
    memory.held[best] = memory.told[best] = tokens
    return best


def acquire_empty(memory: VirtualArrays, tokens: int) -> tuple[int, int]:
    """Take the idle range that has the fewest mapped; return it, and how many it unmapped."""
    count, best = memory.pages.count, -1
    for vrange in range(len(memory.held)):
        if not memory.held[vrange] and (best < 0 or count[vrange] < count[best]):
            best = vrange
    unmapped = len(moves.drop(memory.pages, best, 0))
    memory.held[best] = memory.told[best] = tokens
    return best, unmapped


def ranges_of(memory: VirtualArrays, rows: IntArray) -> IntArray:
    """Return the range of each row."""
    ranges = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        ranges[i] = memory.range_of[rows[i]]
    return ranges


# -- a step ------------------------------------------------------------------------------------
def begin_step(memory: VirtualArrays) -> StepMaps:
    """Map what is promised, and beside the step what the thread maps ahead."""
    if not memory.threaded:
        maps, unmaps = _settle_in_order(memory)
        return StepMaps(maps, unmaps, 0, 0)
    memory.told[:] = memory.held
    maps, unmaps = _settle_all(memory)
    ahead, reclaimed = _work(memory)
    return StepMaps(maps, unmaps, ahead, reclaimed)


def _settle_all(memory: VirtualArrays) -> tuple[int, int]:
    """Map what is promised to all ranges; return how many page-groups are mapped and unmapped."""
    for vrange in range(len(memory.held)):
        if _lack(memory, vrange):
            return settle(memory, np.arange(len(memory.held)))
    return 0, 0


def settle(memory: VirtualArrays, ranges: IntArray) -> tuple[int, int]:
    """Map what is promised to these ranges; return how many page-groups are (un)mapped."""
    promised, lacks = 0, np.empty(len(ranges), dtype=np.int64)
    for i in range(len(ranges)):
        lacks[i] = _lack(memory, ranges[i])
        promised += lacks[i]
    if promised <= memory.pages.ends[1]:
        return moves.extend_by_turns(memory.pages, ranges, lacks), 0
    maps, unmaps = 0, 0
    for vrange in ranges:
        if _lack(memory, vrange):
            mapped, unmapped = _map_lacking(memory, vrange, memory.held)
            maps += mapped
            unmaps += unmapped
    return maps, unmaps


def _settle_in_order(memory: VirtualArrays) -> tuple[int, int]:
    """Tell range by range how long it is, and map what it lacks; idle ones may give back all."""
    pages, gives_back = memory.pages, not memory.deferred
    kept = np.zeros(len(memory.held), dtype=np.bool_)
    for vrange in range(len(memory.held)):
        kept[vrange] = gives_back and not memory.held[vrange] and pages.count[vrange] > 0
    maps, unmaps = 0, 0
    for vrange in range(len(memory.held)):
        length = memory.held[vrange]
        memory.told[vrange] = length
        if kept[vrange]:
            unmaps += len(moves.drop(pages, vrange, 0))
        elif length > pages.count[vrange] * pages.page_tokens:
            mapped, unmapped = _map_lacking(memory, vrange, memory.told)
            maps += mapped
            unmaps += unmapped
    return maps, unmaps


def _lack(memory: VirtualArrays, vrange: int) -> int:
    if not memory.held[vrange]:
        return 0
    count = memory.pages.count[vrange]
    return max(needed(memory.held[vrange], memory.pages.page_tokens) - count, 0)


def _map_lacking(memory: VirtualArrays, vrange: int, lengths: IntArray) -> tuple[int, int]:
    """Map what one range lacks, with excess beyond these lengths where nothing is free."""
    lack = _lack(memory, vrange)
    unmapped = reclaim(memory, lack, lengths)
    return _map(memory.pages, vrange, lack), unmapped


def _map(pages: Pages, vrange: int, n: int) -> int:
    """Map page-groups behind what a range has, but none behind its end; return how many."""
    n = min(n, pages.table.shape[1] - pages.count[vrange])
    if n:
        moves.append(pages, vrange, n)
    return n


def reclaim(memory: VirtualArrays, wanted: int, lengths: IntArray) -> int:
    """Unmap excess until `wanted` are free or none is left: whole excess, last range first."""
    pages, unmapped, vrange = memory.pages, 0, len(lengths)
    while wanted > pages.ends[1] and vrange:
        vrange -= 1
        keep = needed(lengths[vrange], pages.page_tokens)
        if pages.count[vrange] > keep:
            unmapped += len(moves.drop(pages, vrange, keep))
    return unmapped


# -- beside the step ---------------------------------------------------------------------------
def _work(memory: VirtualArrays) -> tuple[int, int]:
    """Do what the thread does; return how many page-groups it maps and unmaps."""
    due = 0
    for vrange in range(len(memory.held)):
        due += _short(memory, vrange, 1)
    unmapped = reclaim(memory, due, memory.held)
    if due > memory.pages.ends[1]:
        return 0, unmapped  # it hopes that a request ends
    mapped = _ahead(memory)
    if not due and not memory.deferred:
        unmapped += _give_back_one(memory)
    return mapped, unmapped


def _short(memory: VirtualArrays, vrange: int, tokens: int) -> int:
    if not memory.held[vrange]:
        return 0
    pages = memory.pages
    count, length, width = pages.count[vrange], memory.held[vrange], pages.table.shape[1]
    return short(count, length, tokens, pages.page_tokens, width)


def _ahead(memory: VirtualArrays) -> int:
    """Map for the next token and then for those behind it, until enough is mapped ahead."""
    pages, mapped, ahead = memory.pages, 0, 0
    any_short = False
    for vrange in range(len(memory.held)):
        any_short = any_short or _short(memory, vrange, LOOK_AHEAD_TOKENS) > 0
    if not any_short:
        return 0
    for tokens in range(1, LOOK_AHEAD_TOKENS + 1):
        enough = tokens > 1 and ahead >= MOST_AHEAD
        for vrange in range(1 if enough else len(memory.held)):
            lack = _short(memory, vrange, tokens)
            if not lack and not enough:
                continue
            if 0 < lack <= pages.ends[1]:
                mapped += _map(pages, vrange, lack)
            ahead += lack
            if tokens > 1 and ahead >= MOST_AHEAD:
                return mapped
    return mapped


def _give_back_one(memory: VirtualArrays) -> int:
    """Unmap one page-group of the last idle range that has any, but not of the one let next."""
    pages, following, last = memory.pages, -1, -1
    for vrange in range(len(memory.held)):
        if memory.held[vrange]:
            continue
        if following < 0:
            following = vrange
        elif pages.count[vrange]:
            last = vrange
    return len(moves.drop(pages, last, pages.count[last] - 1)) if last >= 0 else 0
