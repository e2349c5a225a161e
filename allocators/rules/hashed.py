"""Blocks over arrays that prompts are looked up in: `Paged` with `prefix_index=hash`.

The keys of a request's blocks are made outside, before it may be admitted, and kept until it ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import cached, paged
from allocators.rules import pages as moves
from allocators.rules.answers import (
    AGREED,
    NEVER,
    NO_MAPS,
    REFUSAL,
    Account,
    Answer,
    Ask,
    Ended,
    StepMaps,
)
from allocators.rules.cached import Cached
from allocators.rules.pages import Pages

#: a row: whose it is, and how many of its blocks have a key and may have one
ROW = np.dtype([("request", np.int64), ("done", np.int64), ("known", np.int64)])
NO_NUMBERS = np.empty(0, dtype=np.int64)


#: `eviction` and `free_order`, and how they are called here
ORDERS = {
    ("lru", "unkeyed_first"): cached.UNKEYED_FIRST,
    ("lru", "by_age"): cached.BY_AGE,
    ("fifo", "unkeyed_first"): cached.FIFO,
    ("lfu", "unkeyed_first"): cached.LFU,
}


class Keys(NamedTuple):
    """Keys of whole requests, one request's behind the other's: `first` and `second` [blocks].

    `starts` [requests] says where those of a request begin that are at hand.
    """

    starts: IntArray
    first: IntArray
    second: IntArray


NO_KEYS = Keys(NO_NUMBERS, NO_NUMBERS, NO_NUMBERS)


class HashedArrays(NamedTuple):
    """The state of a `Paged` with an index: tables are shared with it, what is free is not.

    `rows` [rows] of the records above; `found` [pages] are the blocks of the last lookup.
    """

    pages: Pages
    length: IntArray
    active: np.ndarray
    watermark_blocks: int
    bytes_per_token: int
    capacity_bytes: int
    pool: Cached
    rows: Any
    found: IntArray
    keys: Keys


def hashed_arrays(plain: paged.PagedArrays, free: IntArray, order: int) -> HashedArrays:
    """Return the state of a `Paged` that holds nothing and whose free blocks are these."""
    table = plain.pages.table
    return HashedArrays(
        *plain,
        cached.cached_blocks(free, len(plain.pages.ref), order),
        np.zeros(len(table), dtype=ROW).view(np.recarray),
        np.zeros(table.shape[1], dtype=np.int64),
        NO_KEYS,
    )


# -- admission ---------------------------------------------------------------------------------
def lookup(memory: HashedArrays, request: int, tokens: int) -> int:
    """Find the longest hit of a request's first `tokens`; return how many of them it has."""
    keys, pool, t = memory.keys, memory.pool, memory.pages.page_tokens
    start, hit = keys.starts[request], 0
    for i in range((tokens - 1) // t):
        block = cached.named(pool, keys.first[start + i])
        if block == cached.NONE or pool.blocks[block].second != keys.second[start + i]:
            break
        memory.found[i] = block
        hit += 1
    return hit * t


def admit(memory: HashedArrays, rows: IntArray, ask: Ask) -> Answer:
    """Start a sequence in the only row with what was just found."""
    row = rows[0]
    pages, pool, t = memory.pages, memory.pool, memory.pages.page_tokens
    blocks = -(-max(ask.tokens, ask.whole_tokens) // t)
    if blocks > len(pages.ref):
        return NEVER
    hit, idle = ask.hit_tokens // t, 0
    for i in range(hit):
        idle += pages.ref[memory.found[i]] == 0
    room = paged.admissible(pool.counts[0].free, memory.watermark_blocks, memory.active)
    if blocks - hit + idle > room:
        return REFUSAL
    for i in range(hit):
        block = memory.found[i]
        if not pages.ref[block]:
            cached.hold(pool, block)
        cached.note_hit(pool, block)
        pages.ref[block] += 1
        pages.table[row, i] = block
    pages.count[row] = hit
    _append(memory, row, moves.lacking(hit, 0, ask.tokens, t))
    memory.length[row] = ask.tokens
    memory.active[row] = True
    of = memory.rows[row]
    of.request, of.done = ask.request, hit
    of.known = (ask.prompt_tokens + ask.output_tokens) // t
    _key_full(memory, row, True)
    return AGREED


def _append(memory: HashedArrays, row: int, n: int) -> None:
    """Give a row `n` more blocks; the caller makes sure of room first."""
    pages = memory.pages
    if memory.pool.order >= cached.FIFO:
        cached.unrank(memory.pool, n)
    for _ in range(n):
        block = cached.take(memory.pool)
        pages.table[row, pages.count[row]] = block
        pages.ref[block] = 1
        pages.count[row] += 1


def _key_full(memory: HashedArrays, row: int, deepest_first: bool) -> None:
    """Key the blocks that a row has filled since this was last asked; who counts as keyed first."""
    of, keys = memory.rows[row], memory.keys
    first, table = of.done, memory.pages.table
    full = min(memory.length[row] // memory.pages.page_tokens, of.known)
    while of.done < full:
        at, block = keys.starts[of.request] + of.done, table[row, of.done]
        cached.name(memory.pool, block, keys.first[at], keys.second[at])
        of.done += 1
    if memory.pool.order < cached.FIFO:
        return
    for i in range(first, full):
        cached.note_named(memory.pool, table[row, first + full - 1 - i if deepest_first else i])


# -- growth ------------------------------------------------------------------------------------
def grow(memory: HashedArrays, rows: IntArray, n: int, width: int) -> Answer:
    """Give each row its next `n` slots, all or nothing; several rows one slot each."""
    pages, t, needed = memory.pages, memory.pages.page_tokens, 0
    for row in rows:
        needed += moves.lacking(pages.count[row], memory.length[row], n, t)
    if needed > memory.pool.counts[0].free:
        return REFUSAL
    if needed:
        for row in rows:
            _append(memory, row, moves.lacking(pages.count[row], memory.length[row], n, t))
    for row in rows:
        memory.length[row] += n
        _key_full(memory, row, False)
    return AGREED


# -- sharing -----------------------------------------------------------------------------------
# Nothing is forked: requests are of one sequence, and no batch is released as one.
def fork(memory: HashedArrays, parent: int, children: IntArray, ask: Ask) -> Answer:
    """Refuse."""
    return REFUSAL


def reassign(memory: HashedArrays, rows: IntArray, parents: IntArray, width: int) -> Answer:
    """Refuse."""
    return REFUSAL


def distinct(memory: HashedArrays, rows: IntArray) -> int:
    """Count none."""
    return 0


# -- a step ------------------------------------------------------------------------------------
def begin_step(memory: HashedArrays) -> StepMaps:
    """Map nothing."""
    return NO_MAPS


# -- release -----------------------------------------------------------------------------------
def release(memory: HashedArrays, row: int) -> int:
    """End a sequence and take its memory back; what has a key can be found as before.

    At most its last block has none, since all its tokens are known.  Returns the page-groups
    unmapped.
    """
    pages = memory.pages
    for i in range(pages.count[row] - 1, -1, -1):
        block = pages.table[row, i]
        pages.table[row, i] = -1
        pages.ref[block] -= 1
        if not pages.ref[block]:
            cached.give(memory.pool, block)
    if memory.pool.order >= cached.FIFO:
        cached.rank(memory.pool)
    pages.count[row] = 0
    memory.length[row] = 0
    memory.active[row] = False
    memory.rows[row].done = memory.rows[row].known = 0
    return 0


def preempt(memory: HashedArrays, row: int) -> int:
    """Take the memory of a sequence that will be back; return the page-groups unmapped."""
    return release(memory, row)


# -- views -------------------------------------------------------------------------------------
def usage(
    memory: HashedArrays, rows: IntArray, finals: IntArray, width: int, ended: Ended
) -> Account:
    """Account for the pool; `rows` are all that are active."""
    held = len(memory.pages.ref) - memory.pool.counts[0].free
    return paged.tally(memory, rows, finals, width, ended, held, cached_bytes(memory))


def cached_bytes(memory: HashedArrays) -> int:
    """Return what nobody holds and can be found."""
    return memory.pool.counts[0].cached * memory.pages.page_tokens * memory.bytes_per_token


def sequences_held(memory: HashedArrays, prompt: int, output: int) -> int:
    """Return how many sequences of such requests an empty pool holds, that share nothing."""
    return moves.rows_held(memory.pages, prompt + output)
