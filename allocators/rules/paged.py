"""Blocks over arrays: what `Paged` without a prefix index does for sequences that stand alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, IntArray
from allocators.rules import pages as moves
from allocators.rules.answers import GRANTED, NEVER_FITS, NO_MAPS, REFUSED, Account, Ask, StepMaps
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


def admit(memory: PagedArrays, row: int, ask: Ask) -> int:
    """Start a sequence in `row`; return GRANTED, REFUSED or NEVER_FITS."""
    pages, t = memory.pages, memory.pages.page_tokens
    blocks = -(-max(ask.tokens, ask.whole_tokens) // t)
    if blocks > len(pages.ref):
        return NEVER_FITS
    if blocks > admissible(pages.ends[1], memory.watermark_blocks, memory.active):
        return REFUSED
    moves.append(pages, row, moves.lacking(0, 0, ask.tokens, t))
    memory.length[row] = ask.tokens
    memory.active[row] = True
    return GRANTED


def admissible(free: int, watermark_blocks: int, active: np.ndarray) -> int:
    """Return how many free blocks an admission may take: beside others it leaves the watermark."""
    return free - (watermark_blocks if watermark_blocks and active.any() else 0)


# -- growth ------------------------------------------------------------------------------------
def grow(memory: PagedArrays, rows: IntArray, n: int) -> int:
    """Give each row its next `n` slots, all or nothing; several rows one slot each.

    None of them shares a block.
    """
    pages, t, needed = memory.pages, memory.pages.page_tokens, 0
    for row in rows:
        needed += moves.lacking(pages.count[row], memory.length[row], n, t)
    if needed > pages.ends[1]:
        return REFUSED
    for row in rows:
        lacking = moves.lacking(pages.count[row], memory.length[row], n, t)
        if lacking:
            moves.append(pages, row, lacking)
        memory.length[row] += n
    return GRANTED


# -- a step ------------------------------------------------------------------------------------
def begin_step(memory: PagedArrays) -> StepMaps:
    """Map nothing."""
    return NO_MAPS


# -- release -----------------------------------------------------------------------------------
def release(memory: PagedArrays, row: int) -> None:
    """End a sequence and take its memory back."""
    moves.drop(memory.pages, row, 0)
    memory.length[row] = 0
    memory.active[row] = False


def preempt(memory: PagedArrays, row: int) -> None:
    """Take the memory of a sequence that will be back."""
    release(memory, row)


# -- views -------------------------------------------------------------------------------------
def usage(memory: PagedArrays, rows: IntArray, finals: IntArray) -> Account:
    """Account for the pool; `rows` are all that are active."""
    held = len(memory.pages.ref) - memory.pages.ends[1]
    return tally(memory, rows, finals, held, 0)


def tally(memory: Any, rows: IntArray, finals: IntArray, held: int, cached: int) -> Account:
    """Account for a pool of which `held` blocks are held and `cached` bytes are not."""
    pages, t = memory.pages, memory.pages.page_tokens
    spare, later, logical = 0, 0, 0
    for i in range(len(rows)):
        count, length = pages.count[rows[i]], memory.length[rows[i]]
        room, written_later = moves.unwritten(count, length, finals[i], t)
        spare += room
        later += written_later
        logical += count
    per_token, capacity_bytes = memory.bytes_per_token, memory.capacity_bytes
    return account(held, held, spare, later, logical, cached, t, per_token, capacity_bytes)


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
