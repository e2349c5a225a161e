"""Free blocks in order, and those with a key, over arrays: what a compiled loop has for an index.

This is a second text of `HashIndex` and its pools: their dict and columns of NumPy are several
times as fast in Python as these rules of one block would be, and these several times as fast
compiled (docs/performance.md).  `tests/engine/compiled/test_prefix.py` holds both to the same
blocks in the same order.

Free blocks are a ring of links through an entry that is no block, the last one of `blocks`: behind
it is the block that is used next, before it the one that is used last.  In the orders that rank
cached blocks these stand in a heap instead, from which they are used once the ring is empty.

Keys are in an open table, probed from the place that a key's upper half names; of equal ones the
oldest stands first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import ranked

#: a block: its key's two sums, its neighbours among the free ones, and whether it has a key
BLOCK = np.dtype(
    [
        ("first", np.int64),
        ("second", np.int64),
        ("before", np.int32),
        ("behind", np.int32),
        ("keyed", np.int64),
    ]
)
#: where blocks rank: by what, a block's place in the heap, and who has the place of its own number
RANK = np.dtype([(name, np.int64) for name in ("hits", "since", "place", "heap")])
COUNTS = np.dtype([(name, np.int64) for name in ("free", "cached", "evictions", "ranked", "clock")])
NONE = -1
#: eviction lru: blocks without a key before all others, or by age too; those that rank
UNKEYED_FIRST, BY_AGE, FIFO, LFU = range(4)
#: an entry of the table is the upper half of a key's first sum, and a block
HALF, LOW = 32, (1 << 32) - 1


class Cached(NamedTuple):
    """`blocks` [pages + 1] and `counts` [1] of the records above; `table` [power of two] of keys.

    `free` counts all that nobody holds, `cached` those of them that have a key.  `order` is one of
    the four above; `ranks` [pages] are empty in the first two.
    """

    blocks: Any
    table: IntArray
    counts: Any
    order: int
    ranks: Any


def cached_blocks(free: IntArray, num_pages: int, order: int) -> Cached:
    """Return the state of a pool whose blocks have no keys, of which these are free, in order."""
    blocks = np.zeros(num_pages + 1, dtype=BLOCK).view(np.recarray)
    counts = np.zeros(1, dtype=COUNTS).view(np.recarray)
    table = np.full(2 << num_pages.bit_length(), NONE, dtype=np.int64)
    ring = np.append(free, num_pages)
    blocks.behind[ring], blocks.before[ring] = np.roll(ring, -1), np.roll(ring, 1)
    counts.free[0] = len(free)
    ranks = np.zeros(num_pages if order >= FIFO else 0, dtype=RANK).view(np.recarray)
    return Cached(blocks, table, counts, order, ranks)


# -- free blocks -------------------------------------------------------------------------------
def take(memory: Cached) -> int:
    """Remove and return the block that is used next; if it has a key it loses that."""
    blocks, counts = memory.blocks, memory.counts[0]
    block = blocks[len(blocks) - 1].behind
    _unlink(memory, block)
    counts.free -= 1
    if blocks[block].keyed:
        _forget(memory, block)
        counts.cached -= 1
        counts.evictions += 1
    return block


def hold(memory: Cached, block: int) -> None:
    """Take out a cached block that is hit, with its key."""
    if memory.order >= FIFO:
        ranked.remove(memory, block)
    else:
        _unlink(memory, block)
    memory.counts[0].free -= 1
    memory.counts[0].cached -= 1


def give(memory: Cached, block: int) -> None:
    """Add a block that nobody holds any more; those of one release come deepest first."""
    blocks, counts = memory.blocks, memory.counts[0]
    end = len(blocks) - 1
    counts.free += 1
    counts.cached += blocks[block].keyed
    first = memory.order == UNKEYED_FIRST and not blocks[block].keyed
    _link(memory, block, end if first else blocks[end].before)


def unrank(memory: Cached, n: int) -> None:
    """Where blocks rank, let the next to go stand in the ring until it has the `n` to be taken."""
    blocks, counts = memory.blocks, memory.counts[0]
    end = len(blocks) - 1
    while counts.free - counts.ranked < n:
        _link(memory, ranked.pop(memory), blocks[end].before)


def rank(memory: Cached) -> None:
    """Where blocks rank, take those with a key that were just given out of the ring."""
    blocks, end = memory.blocks, len(memory.blocks) - 1
    block = end
    while blocks[blocks[block].before].keyed:
        block = blocks[block].before
    while block != end:
        behind = blocks[block].behind
        _unlink(memory, block)
        if memory.order == LFU:
            ranked.stamp(memory, block)
        ranked.push(memory, block)
        block = behind


def _link(memory: Cached, block: int, before: int) -> None:
    blocks = memory.blocks
    behind = blocks[before].behind
    blocks[block].before, blocks[block].behind = before, behind
    blocks[before].behind = block
    blocks[behind].before = block


def _unlink(memory: Cached, block: int) -> None:
    blocks = memory.blocks
    before, behind = blocks[block].before, blocks[block].behind
    blocks[before].behind = behind
    blocks[behind].before = before


# -- keys --------------------------------------------------------------------------------------
def named(memory: Cached, first: int) -> int:
    """Return the block that a key's first sum names, the oldest that has it; NONE if none has."""
    table, most = memory.table, len(memory.table) - 1
    at = (first >> HALF) & most
    while table[at] != NONE:
        block = table[at] & LOW
        if table[at] >> HALF == first >> HALF and memory.blocks[block].first == first:
            return block
        at = (at + 1) & most
    return NONE


def note_hit(memory: Cached, block: int) -> None:
    """Note that a block that is held by now was hit."""
    if memory.order == LFU:
        memory.ranks[block].hits += 1


def note_named(memory: Cached, block: int) -> None:
    """Note that a block got its key after all of whom this was said before."""
    if memory.order == FIFO:
        ranked.stamp(memory, block)
    elif memory.order == LFU:
        memory.ranks[block].hits = 0


def name(memory: Cached, block: int, first: int, second: int) -> None:
    """Give a held block a key."""
    table, entry, most = memory.table, memory.blocks[block], len(memory.table) - 1
    entry.first, entry.second, entry.keyed = first, second, 1
    at = (first >> HALF) & most
    while table[at] != NONE:
        at = (at + 1) & most
    table[at] = (first >> HALF << HALF) | block


def _forget(memory: Cached, block: int) -> None:
    """Take a block's key; what stands behind it moves up, so that the oldest stays the first."""
    table, entry, most = memory.table, memory.blocks[block], len(memory.table) - 1
    entry.keyed = 0
    hole = (entry.first >> HALF) & most
    while table[hole] & LOW != block:
        hole = (hole + 1) & most
    at = (hole + 1) & most
    while table[at] != NONE:
        home = (table[at] >> HALF) & most
        if (at - home) & most >= (at - hole) & most:
            table[hole] = table[at]
            hole = at
        at = (at + 1) & most
    table[hole] = NONE
