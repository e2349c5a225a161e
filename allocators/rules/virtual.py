"""Ranges over arrays: what `Virtual` does by vAttention's code.

Rules of one range are the classes' too.  The order in which promised page-groups are mapped, and
in which the thread maps ahead, stands here a second time, without the grants that say what was
mapped where: it is that of `allocators.virtual.ranges` and `background`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import pages as moves
from allocators.rules.answers import (
    AGREED,
    GRANTED,
    NEVER,
    REFUSAL,
    Account,
    Answer,
    Ask,
    Ended,
    StepMaps,
)
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


def admit(memory: VirtualArrays, rows: IntArray, ask: Ask) -> Answer:
    """Start a group: the first of `rows` holds the prompt, the others continue from it."""
    page_groups = asked(ask, len(rows), memory.pages.page_tokens, memory.alias)
    if page_groups > len(memory.pages.ref):
        return NEVER
    if not has(memory, page_groups):
        return REFUSAL
    _open(memory, rows[0], ask.tokens)
    if len(rows) == 1:  # with nothing of its own behind a prompt for all
        return AGREED
    private = ask.private_tokens
    answer = _continue(memory, rows[0], rows[1:], private > 0)
    return _diverge(memory, rows, private, answer) if private else answer


def asked(ask: Ask, sequences: int, page_tokens: int, alias: bool) -> int:
    """Return the page-groups that have to be free for an admission of so many sequences."""
    whole = needed(ask.tokens + ask.private_tokens, page_tokens)
    shared = 0
    if alias and sequences > 1:
        shared = ask.tokens // page_tokens if ask.private_tokens else whole
    forked = moves.when_forked(ask, sequences, page_tokens, alias)
    return max(shared + sequences * (whole - shared), forked)


def _open(memory: VirtualArrays, row: int, tokens: int) -> None:
    """Give a sequence a range with room for `tokens`."""
    memory.range_of[row] = _acquire(memory, tokens)
    memory.length[row] = tokens
    memory.active[row] = True


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


def _acquire_empty(memory: VirtualArrays, tokens: int) -> tuple[int, int]:
    """Take the idle range that has the fewest mapped; return it, and how many it unmapped."""
    count, best = memory.pages.count, -1
    for vrange in range(len(memory.held)):
        if not memory.held[vrange] and (best < 0 or count[vrange] < count[best]):
            best = vrange
    unmapped = len(moves.drop(memory.pages, best, 0))
    memory.held[best] = memory.told[best] = tokens
    return best, unmapped


def _diverge(memory: VirtualArrays, rows: IntArray, n: int, before: Answer) -> Answer:
    """Give each sequence of a new group `n` slots of its own behind the prompt."""
    tail = memory.length[rows[0]] % memory.pages.page_tokens
    for row in rows:
        memory.length[row] += n
        memory.held[memory.range_of[row]] += n
    maps, unmaps = settle(memory, ranges_of(memory, rows))
    copied = (len(rows) - 1) * tail if memory.alias else 0
    return Answer(GRANTED, before.copied + copied, before.maps + maps, before.unmaps + unmaps)


def ranges_of(memory: VirtualArrays, rows: IntArray) -> IntArray:
    """Return the range of each row."""
    ranges = np.empty(len(rows), dtype=np.int64)
    for i in range(len(rows)):
        ranges[i] = memory.range_of[rows[i]]
    return ranges


# -- growth ------------------------------------------------------------------------------------
def grow(memory: VirtualArrays, rows: IntArray, n: int, width: int) -> Answer:
    """Give each row its next `n` slots, all or nothing; `rows` are whole groups."""
    pages, t, more, copies = memory.pages, memory.pages.page_tokens, 0, 0
    for row in rows:
        more += needed(memory.length[row] + n, t) - needed(memory.length[row], t)
    if width > 1 and memory.alias:
        ranges = ranges_of(memory, rows)
        copies = moves.copies_due(pages, ranges, memory.held, width)
    if more + copies and not has(memory, more + copies):
        return REFUSAL
    copied, unmaps = 0, 0
    if copies:
        unmaps = copies + _reclaim(memory, copies, memory.held)
        copied = moves.copy_tails(pages, ranges_of(memory, rows), memory.held)
    for row in rows:
        memory.length[row] += n
        memory.held[memory.range_of[row]] += n
    return Answer(GRANTED, copied, copies, unmaps)


# -- sharing -----------------------------------------------------------------------------------
def fork(memory: VirtualArrays, parent: int, children: IntArray, ask: Ask) -> Answer:
    """Start `children` as continuations of what `parent` holds now."""
    need = needed(memory.length[parent], memory.pages.page_tokens)
    if not memory.alias and not has(memory, need * len(children)):
        return REFUSAL
    return _continue(memory, parent, children, False)


def _continue(memory: VirtualArrays, parent: int, children: IntArray, diverging: bool) -> Answer:
    """Let children go on from a parent, whose page-groups have to be mapped for that."""
    pages, t = memory.pages, memory.pages.page_tokens
    length, source = memory.length[parent], memory.range_of[parent]
    maps, unmaps = settle(memory, memory.range_of[parent : parent + 1])
    if not memory.alias:
        for child in children:
            _open(memory, child, length)
        mapped, unmapped = settle(memory, ranges_of(memory, children))
        copied = len(children) * _copied(memory, length)
        return Answer(GRANTED, copied, maps + mapped, unmaps + unmapped)
    need = length // t if diverging else needed(length, t)
    for child in children:
        memory.range_of[child], unmapped = _acquire_empty(memory, length)
        unmaps += unmapped
    for child in children:
        moves.share(pages, source, memory.range_of[child], need)
        memory.length[child] = length
        memory.active[child] = True
    return Answer(GRANTED, 0, maps + need * len(children), unmaps)


def _copied(memory: VirtualArrays, length: int) -> int:
    """Return the slots that a copy of a range moves: page-group by page-group, and its tail."""
    t, width = memory.pages.page_tokens, memory.pages.table.shape[1]
    return min(needed(length, t), width) * t + max(0, length - width * t)


def reassign(memory: VirtualArrays, rows: IntArray, parents: IntArray, width: int) -> Answer:
    """Let each row continue from the `parents[i]`-th of its group."""
    ranges = ranges_of(memory, rows)
    maps, unmaps = settle(memory, ranges)
    if memory.alias:
        changed = moves.reassign(memory.pages, ranges, parents, memory.held, width)
        return Answer(GRANTED, 0, maps + changed, unmaps + changed)
    copied = 0
    for i in range(len(rows)):
        if parents[i] != i % width:
            copied += _copied(memory, memory.length[rows[i]])
    return Answer(GRANTED, copied, maps, unmaps)


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
def release(memory: VirtualArrays, row: int) -> int:
    """End a sequence; return how many page-groups its range unmaps.

    It keeps what it has mapped, up to one that others share.
    """
    pages, vrange = memory.pages, memory.range_of[row]
    memory.held[vrange] = memory.told[vrange] = 0
    memory.range_of[row] = -1
    memory.length[row] = 0
    memory.active[row] = False
    for column in range(pages.count[vrange]):
        if pages.ref[pages.table[vrange, column]] > 1:
            return len(moves.drop(pages, vrange, column))
    return 0


def preempt(memory: VirtualArrays, row: int) -> int:
    """Take the memory of a sequence that will be back; return the page-groups unmapped."""
    return release(memory, row)


# -- views -------------------------------------------------------------------------------------
def distinct(memory: VirtualArrays, rows: IntArray) -> int:
    """Count the page-groups of one group that hold a slot of it, shared ones once."""
    return moves.distinct(memory.pages, ranges_of(memory, rows), memory.held)


def usage(
    memory: VirtualArrays, rows: IntArray, finals: IntArray, width: int, ended: Ended
) -> Account:
    """Account for the pool; `rows` and those of `ended` are all that are active."""
    pages, t, most = memory.pages, memory.pages.page_tokens, memory.pages.table.shape[1]
    spare, later, logical = 0, 0, 0
    for i in range(len(rows)):
        vrange, length = memory.range_of[rows[i]], memory.length[rows[i]]
        if vrange < 0:
            continue  # of a group that is not forked yet
        count = pages.count[vrange]
        room, soon = moves.unwritten(count, length, finals[i], t)
        spare += room
        later += soon
        if memory.tail_tokens:
            later += written_in_tail(count, length, finals[i], most, t)
        logical += count
    if width > 1:
        ranges = ranges_of(memory, rows)
        twice, twice_later = moves.slack_again(pages, ranges, finals, memory.held, width)
        spare -= twice
        later -= twice_later
    idle = _idle_page_groups(memory)
    held = len(pages.ref) - pages.ends[1] - idle
    written = held * t - spare
    for row in ended.rows:  # what they hold beyond their slots, a thread may have mapped
        vrange = memory.range_of[row]
        used = min(needed(memory.held[vrange], t), most)
        written -= (pages.count[vrange] - used) * t
        logical += pages.count[vrange]
    return account(
        held,
        written - ended.pages * t,
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


def sequences_held(memory: VirtualArrays, prompt: int, output: int) -> int:
    """Return how many sequences of such requests an empty pool holds, that share nothing."""
    return moves.rows_held(memory.pages, prompt + output)
