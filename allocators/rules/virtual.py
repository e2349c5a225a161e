"""Sequences in virtual ranges over arrays: what `Virtual` does by vAttention's code.

What a range maps and when is said by `allocators.rules.mapping`.
"""

from __future__ import annotations

from allocators.base import IntArray
from allocators.rules import mapping
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
)
from allocators.rules.mapping import VirtualArrays
from allocators.rules.mapping import begin_step as begin_step

#: bytes of one page-table entry of the driver
PAGE_TABLE_ENTRY_BYTES = 8


# -- admission ---------------------------------------------------------------------------------
def lookup(memory: VirtualArrays, request: int, tokens: int) -> int:
    """Find nothing."""
    return 0


def admit(memory: VirtualArrays, rows: IntArray, ask: Ask) -> Answer:
    """Start a group: the first of `rows` holds the prompt, the others continue from it."""
    page_groups = asked(ask, len(rows), memory.pages.page_tokens, memory.alias)
    if page_groups > len(memory.pages.ref):
        return NEVER
    if not mapping.has(memory, page_groups):
        return REFUSAL
    _open(memory, rows[0], ask.tokens)
    if len(rows) == 1:  # with nothing of its own behind a prompt for all
        return AGREED
    private = ask.private_tokens
    answer = _continue(memory, rows[0], rows[1:], private > 0)
    return _diverge(memory, rows, private, answer) if private else answer


def asked(ask: Ask, sequences: int, page_tokens: int, alias: bool) -> int:
    """Return the page-groups that have to be free for an admission of so many sequences."""
    whole = mapping.needed(ask.tokens + ask.private_tokens, page_tokens)
    shared = 0
    if alias and sequences > 1:
        shared = ask.tokens // page_tokens if ask.private_tokens else whole
    forked = moves.when_forked(ask, sequences, page_tokens, alias)
    return max(shared + sequences * (whole - shared), forked)


def _open(memory: VirtualArrays, row: int, tokens: int) -> None:
    """Give a sequence a range with room for `tokens`."""
    memory.range_of[row] = mapping.acquire(memory, tokens)
    memory.length[row] = tokens
    memory.active[row] = True


def _diverge(memory: VirtualArrays, rows: IntArray, n: int, before: Answer) -> Answer:
    """Give each sequence of a new group `n` slots of its own behind the prompt."""
    tail = memory.length[rows[0]] % memory.pages.page_tokens
    for row in rows:
        memory.length[row] += n
        memory.held[memory.range_of[row]] += n
    maps, unmaps = mapping.settle(memory, mapping.ranges_of(memory, rows))
    copied = (len(rows) - 1) * tail if memory.alias else 0
    return Answer(GRANTED, before.copied + copied, before.maps + maps, before.unmaps + unmaps)


# -- growth ------------------------------------------------------------------------------------
def grow(memory: VirtualArrays, rows: IntArray, n: int, width: int) -> Answer:
    """Give each row its next `n` slots, all or nothing; `rows` are whole groups."""
    pages, t, more, copies = memory.pages, memory.pages.page_tokens, 0, 0
    for row in rows:
        more += mapping.needed(memory.length[row] + n, t) - mapping.needed(memory.length[row], t)
    if width > 1 and memory.alias:
        ranges = mapping.ranges_of(memory, rows)
        copies = moves.copies_due(pages, ranges, memory.held, width)
    if more + copies and not mapping.has(memory, more + copies):
        return REFUSAL
    copied, unmaps = 0, 0
    if copies:
        unmaps = copies + mapping.reclaim(memory, copies, memory.held)
        copied = moves.copy_tails(pages, mapping.ranges_of(memory, rows), memory.held)
    for row in rows:
        memory.length[row] += n
        memory.held[memory.range_of[row]] += n
    return Answer(GRANTED, copied, copies, unmaps)


# -- sharing -----------------------------------------------------------------------------------
def fork(memory: VirtualArrays, parent: int, children: IntArray, ask: Ask) -> Answer:
    """Start `children` as continuations of what `parent` holds now."""
    need = mapping.needed(memory.length[parent], memory.pages.page_tokens)
    if not memory.alias and not mapping.has(memory, need * len(children)):
        return REFUSAL
    return _continue(memory, parent, children, False)


def _continue(memory: VirtualArrays, parent: int, children: IntArray, diverging: bool) -> Answer:
    """Let children go on from a parent, whose page-groups have to be mapped for that."""
    pages, t = memory.pages, memory.pages.page_tokens
    length, source = memory.length[parent], memory.range_of[parent]
    maps, unmaps = mapping.settle(memory, memory.range_of[parent : parent + 1])
    if not memory.alias:
        for child in children:
            _open(memory, child, length)
        mapped, unmapped = mapping.settle(memory, mapping.ranges_of(memory, children))
        copied = len(children) * _copied(memory, length)
        return Answer(GRANTED, copied, maps + mapped, unmaps + unmapped)
    need = length // t if diverging else mapping.needed(length, t)
    for child in children:
        memory.range_of[child], unmapped = mapping.acquire_empty(memory, length)
        unmaps += unmapped
    for child in children:
        moves.share(pages, source, memory.range_of[child], need)
        memory.length[child] = length
        memory.active[child] = True
    return Answer(GRANTED, 0, maps + need * len(children), unmaps)


def _copied(memory: VirtualArrays, length: int) -> int:
    """Return the slots that a copy of a range moves: page-group by page-group, and its tail."""
    t, width = memory.pages.page_tokens, memory.pages.table.shape[1]
    return min(mapping.needed(length, t), width) * t + max(0, length - width * t)


def reassign(memory: VirtualArrays, rows: IntArray, parents: IntArray, width: int) -> Answer:
    """Let each row continue from the `parents[i]`-th of its group."""
    ranges = mapping.ranges_of(memory, rows)
    maps, unmaps = mapping.settle(memory, ranges)
    if memory.alias:
        changed = moves.reassign(memory.pages, ranges, parents, memory.held, width)
        return Answer(GRANTED, 0, maps + changed, unmaps + changed)
    copied = 0
    for i in range(len(rows)):
        if parents[i] != i % width:
            copied += _copied(memory, memory.length[rows[i]])
    return Answer(GRANTED, copied, maps, unmaps)


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
    return moves.distinct(memory.pages, mapping.ranges_of(memory, rows), memory.held)


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
            later += mapping.written_in_tail(count, length, finals[i], most, t)
        logical += count
    if width > 1:
        ranges = mapping.ranges_of(memory, rows)
        twice, twice_later = moves.slack_again(pages, ranges, finals, memory.held, width)
        spare -= twice
        later -= twice_later
    idle = mapping.idle_page_groups(memory)
    held = len(pages.ref) - pages.ends[1] - idle
    written = held * t - spare
    for row in ended.rows:  # what they hold beyond their slots, a thread may have mapped
        vrange = memory.range_of[row]
        used = min(mapping.needed(memory.held[vrange], t), most)
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
    return mapping.idle_page_groups(memory) * memory.group_bytes


def sequences_held(memory: VirtualArrays, prompt: int, output: int) -> int:
    """Return how many sequences of such requests an empty pool holds, that share nothing."""
    return moves.rows_held(memory.pages, prompt + output)
