"""Ranges over arrays: what `Virtual` does for sequences that stand alone, by vAttention's code.

Rules of one range are the classes' too.  The order in which promised page-groups are mapped, and
in which the thread maps ahead, stands here a second time, without the grants that say what was
mapped where: it is that of `allocators.virtual.ranges` and `background`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import pages as moves
from allocators.rules.answers import GRANTED, NEVER_FITS, REFUSED, Account, Ask, StepMaps
from allocators.rules.pages import Number, Pages

#: bytes of one page-table entry of the driver
PAGE_TABLE_ENTRY_BYTES = 8
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


def _idle_page_groups(memory: VirtualArrays) -> int:
    """Return the page-groups that only idle ranges have mapped."""
    idle = 0
    for vrange in range(len(memory.held)):
        if not memory.held[vrange]:
            idle += memory.pages.count[vrange]
    return idle


# -- admission ---------------------------------------------------------------------------------
def lookup(memory: VirtualArrays, request: int, tokens: int) -> int:
    """Find nothing."""
    return 0


def admit(memory: VirtualArrays, row: int, ask: Ask) -> int:
    """Start a sequence in `row`; return GRANTED, REFUSED or NEVER_FITS."""
    page_groups = needed(max(ask.tokens, ask.whole_tokens), memory.pages.page_tokens)
    if page_groups > len(memory.pages.ref):
        return NEVER_FITS
    if not has(memory, page_groups):
        return REFUSED
    vrange = _acquire(memory, ask.tokens)
    memory.range_of[row] = vrange
    memory.length[row] = ask.tokens
    memory.active[row] = True
    return GRANTED


def _acquire(memory: VirtualArrays, tokens: int) -> int:
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


# -- growth ------------------------------------------------------------------------------------
def grow(memory: VirtualArrays, rows: IntArray, n: int) -> int:
    """Give each row its next `n` slots, all or nothing; no page-group is shared."""
    t, more = memory.pages.page_tokens, 0
    for row in rows:
        more += needed(memory.length[row] + n, t) - needed(memory.length[row], t)
    if more and not has(memory, more):
        return REFUSED
    for row in rows:
        memory.length[row] += n
        memory.held[memory.range_of[row]] += n
    return GRANTED


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
    pages = memory.pages
    promised, most = 0, 0
    for vrange in range(len(memory.held)):
        lack = _lack(memory, vrange)
        promised += lack
        most = max(most, lack)
    maps, unmaps = 0, 0
    if promised <= pages.ends[1]:
        # The first of each range, then the second of each, and so on.
        counts = pages.count.copy()
        for turn in range(most):
            for vrange in range(len(memory.held)):
                lack = needed(memory.held[vrange], pages.page_tokens) - counts[vrange]
                if lack > turn:
                    maps += _map(pages, vrange, 1)
        return maps, unmaps
    for vrange in range(len(memory.held)):
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
    unmapped = _reclaim(memory, lack, lengths)
    return _map(memory.pages, vrange, lack), unmapped


def _map(pages: Pages, vrange: int, n: int) -> int:
    """Map page-groups behind what a range has, but none behind its end; return how many."""
    n = min(n, pages.table.shape[1] - pages.count[vrange])
    if n:
        moves.append(pages, vrange, n)
    return n


def _reclaim(memory: VirtualArrays, wanted: int, lengths: IntArray) -> int:
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
    unmapped = _reclaim(memory, due, memory.held)
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


# -- release -----------------------------------------------------------------------------------
def release(memory: VirtualArrays, row: int) -> None:
    """End a sequence; its range keeps what it has mapped."""
    vrange = memory.range_of[row]
    memory.held[vrange] = memory.told[vrange] = 0
    memory.range_of[row] = -1
    memory.length[row] = 0
    memory.active[row] = False


def preempt(memory: VirtualArrays, row: int) -> None:
    """Take the memory of a sequence that will be back."""
    release(memory, row)


# -- views -------------------------------------------------------------------------------------
def usage(memory: VirtualArrays, rows: IntArray, finals: IntArray) -> Account:
    """Account for the pool; `rows` are all that are active."""
    pages, t, width = memory.pages, memory.pages.page_tokens, memory.pages.table.shape[1]
    spare, later, logical = 0, 0, 0
    for i in range(len(rows)):
        count, length = pages.count[memory.range_of[rows[i]]], memory.length[rows[i]]
        room, soon = moves.unwritten(count, length, finals[i], t)
        spare += room
        later += soon
        if memory.tail_tokens:
            later += written_in_tail(count, length, finals[i], width, t)
        logical += count
    idle = _idle_page_groups(memory)
    held = len(pages.ref) - pages.ends[1] - idle
    return account(
        held,
        held * t - spare,
        later,
        idle,
        logical,
        (logical + idle) * memory.calls_per_group,
        memory.group_bytes,
        memory.bytes_per_token,
        memory.capacity_bytes,
    )


def account(
    held: int,
    written: int,
    later: int,
    idle: int,
    logical: int,
    entries: int,
    group_bytes: int,
    bytes_per_token: int,
    capacity_bytes: int,
) -> Account:
    """Return where the bytes are; takes arrays, [steps], as well as numbers.

    Sequences hold `held` page-groups, in which `written` slots are read and `later` ones will yet
    be written; what only `idle` ones have is cached.  `entries` of the driver's page table.
    """
    token, reserved = written * bytes_per_token, later * bytes_per_token
    in_use, cached = held * group_bytes, idle * group_bytes
    return Account(
        token,
        reserved,
        in_use - token - reserved,
        0,
        cached,
        capacity_bytes - in_use - cached,
        held,
        logical,
        entries * PAGE_TABLE_ENTRY_BYTES,
    )


def cached_bytes(memory: VirtualArrays) -> int:
    """Return what is cached while nothing runs."""
    return _idle_page_groups(memory) * memory.group_bytes
