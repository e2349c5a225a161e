"""Blocks over arrays: what `Paged` without a prefix index does."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, IntArray
from allocators.rules import pages as moves
from allocators.rules.answers import (
    AGREED,
    GRANTED,
    NEVER,
    NO_MAPS,
    REFUSAL,
    Account,
    Answer,
    Ask,
    Ended,
    StepMaps,
)
from allocators.rules.pages import Pages


class PagedArrays(NamedTuple):
    """The state of a `Paged`, shared with it."""

    pages: Pages
    length: IntArray
    active: np.ndarray
    watermark_blocks: int
    bytes_per_token: int
    capacity_bytes: int


# -- admission ---------------------------------------------------------------------------------
def lookup(memory: PagedArrays, request: int, tokens: int) -> int:
    """Find nothing."""
    return 0


def admit(memory: PagedArrays, rows: IntArray, ask: Ask) -> Answer:
    """Start a group: the first of `rows` holds the prompt, the others continue from it."""
    pages, t = memory.pages, memory.pages.page_tokens
    blocks = asked(ask, len(rows), t)
    if blocks > len(pages.ref):
        return NEVER
    if blocks > admissible(pages.ends[1], memory.watermark_blocks, memory.active):
        return REFUSAL
    first = rows[0]
    moves.append(pages, first, moves.lacking(0, 0, ask.tokens, t))
    for row in rows:
        if row != first:
            moves.share(pages, first, row, pages.count[first])
        memory.length[row] = ask.tokens
        memory.active[row] = True
    if not ask.private_tokens:
        return AGREED
    # The parent goes last and so keeps its partly filled block.
    turned = np.empty(len(rows), dtype=np.int64)
    turned[:-1] = rows[1:]
    turned[-1] = first
    return grow(memory, turned, ask.private_tokens, len(rows))


def asked(ask: Ask, sequences: int, page_tokens: int) -> int:
    """Return the blocks that have to be free for an admission of so many sequences."""
    private = ask.private_tokens
    if not private:
        return moves.when_forked(ask, sequences, page_tokens, True)
    shared = ask.tokens // page_tokens
    return shared + sequences * (-(-(ask.tokens + private) // page_tokens) - shared)


def admissible(free: int, watermark_blocks: int, active: np.ndarray) -> int:
    """Return how many free blocks an admission may take: beside others it leaves the watermark."""
    return free - (watermark_blocks if watermark_blocks and active.any() else 0)


# -- growth ------------------------------------------------------------------------------------
def grow(memory: PagedArrays, rows: IntArray, n: int, width: int) -> Answer:
    """Give each row its next `n` slots, all or nothing; `rows` are whole groups.

    Several groups at once take one slot each.
    """
    pages, t, needed, copies = memory.pages, memory.pages.page_tokens, 0, 0
    for row in rows:
        needed += moves.lacking(pages.count[row], memory.length[row], n, t)
    if width > 1:
        copies = moves.copies_due(pages, rows, memory.length, width)
    if needed + copies > pages.ends[1]:
        return REFUSAL
    copied = moves.copy_tails(pages, rows, memory.length) if copies else 0
    if needed and n > 1 and width > 1:
        lacks = np.empty(len(rows), dtype=np.int64)
        for i in range(len(rows)):
            lacks[i] = moves.lacking(pages.count[rows[i]], memory.length[rows[i]], n, t)
        needed -= moves.extend_by_turns(pages, rows, lacks)
    for row in rows:
        if needed:
            lacking = moves.lacking(pages.count[row], memory.length[row], n, t)
            if lacking:
                moves.append(pages, row, lacking)
        memory.length[row] += n
    return Answer(GRANTED, copied, 0, 0)


# -- sharing -----------------------------------------------------------------------------------
def fork(memory: PagedArrays, parent: int, children: IntArray, ask: Ask) -> Answer:
    """Start `children` as continuations of what `parent` holds now."""
    for child in children:
        moves.share(memory.pages, parent, child, memory.pages.count[parent])
        memory.length[child] = memory.length[parent]
        memory.active[child] = True
    return AGREED


def reassign(memory: PagedArrays, rows: IntArray, parents: IntArray, width: int) -> Answer:
    """Let each row continue from the `parents[i]`-th of its group."""
    moves.reassign(memory.pages, rows, parents, memory.length, width)
    return AGREED


# -- a step ------------------------------------------------------------------------------------
def begin_step(memory: PagedArrays) -> StepMaps:
    """Map nothing."""
    return NO_MAPS


# -- release -----------------------------------------------------------------------------------
def release(memory: PagedArrays, row: int) -> int:
    """End a sequence and take its memory back; return the page-groups unmapped."""
    moves.drop(memory.pages, row, 0)
    memory.length[row] = 0
    memory.active[row] = False
    return 0


def preempt(memory: PagedArrays, row: int) -> int:
    """Take the memory of a sequence that will be back; return the page-groups unmapped."""
    return release(memory, row)


# -- views -------------------------------------------------------------------------------------
def distinct(memory: PagedArrays, rows: IntArray) -> int:
    """Count the blocks of one group, shared ones once."""
    return moves.distinct(memory.pages, rows, memory.length)


def usage(
    memory: PagedArrays, rows: IntArray, finals: IntArray, width: int, ended: Ended
) -> Account:
    """Account for the pool; `rows` and those of `ended` are all that are active."""
    held = len(memory.pages.ref) - memory.pages.ends[1]
    return tally(memory, rows, finals, width, ended, held, 0)


def tally(
    memory: Any,
    rows: IntArray,
    finals: IntArray,
    width: int,
    ended: Ended,
    held: int,
    cached: int,
) -> Account:
    """Account for a pool of which `held` blocks are held and `cached` bytes are not."""
    pages, t = memory.pages, memory.pages.page_tokens
    spare, later, logical = 0, 0, 0
    for i in range(len(rows)):
        count, length = pages.count[rows[i]], memory.length[rows[i]]
        room, written_later = moves.unwritten(count, length, finals[i], t)
        spare += room
        later += written_later
        logical += count
    if width > 1:
        twice, twice_later = moves.slack_again(pages, rows, finals, memory.length, width)
        spare -= twice
        later -= twice_later
    for row in ended.rows:
        logical += pages.count[row]
    per_token, capacity_bytes = memory.bytes_per_token, memory.capacity_bytes
    live = held - ended.pages
    return account(held, live, spare, later, logical, cached, t, per_token, capacity_bytes)


def account(
    held: int,
    live: int,
    spare: int,
    later: int,
    logical: int,
    cached: int,
    page_tokens: int,
    bytes_per_token: int,
    capacity_bytes: int,
) -> Account:
    """Return where the bytes are; takes arrays, [steps], as well as numbers.

    Of `held` blocks `live` ones hold something that a live sequence reads; in those `spare` slots
    are not written, and `later` of them will be.  `cached` in bytes.
    """
    in_use = held * page_tokens * bytes_per_token
    token = (live * page_tokens - spare) * bytes_per_token
    reserved = later * bytes_per_token
    return Account(
        token,
        reserved,
        in_use - token - reserved,
        0 * held,
        cached,
        capacity_bytes - in_use - cached,
        held,
        logical,
        logical * BLOCK_TABLE_ENTRY_BYTES,
    )


def cached_bytes(memory: PagedArrays) -> int:
    """Return what is cached while nothing runs."""
    return 0


def sequences_held(memory: PagedArrays, prompt: int, output: int) -> int:
    """Return how many sequences of such requests an empty pool holds, that share nothing."""
    return moves.rows_held(memory.pages, prompt + output)
