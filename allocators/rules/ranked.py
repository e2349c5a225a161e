"""Cached blocks by rank over arrays: which of them `fifo` and `lfu` evict.

A second text of `allocators/prefix/orders.py`, where a heap of tuples with stale entries is faster
in Python; here each block has one place in the heap, from which it can be taken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from allocators.base import IntArray

#: what orders a block, the less the sooner it goes, and its place in the heap
RANK = np.dtype([("hits", np.int64), ("since", np.int64), ("place", np.int64)])
NOW = np.dtype([("entries", np.int64), ("clock", np.int64)])


class Ranked(NamedTuple):
    """`heap` [pages] of cached blocks, the next to go first; `ranks` [pages]; `now` [1]."""

    heap: IntArray
    ranks: Any
    now: Any


def ranked_blocks(num_pages: int) -> Ranked:
    """Return an empty heap with room for so many blocks."""
    ranks = np.zeros(num_pages, dtype=RANK).view(np.recarray)
    now = np.zeros(1, dtype=NOW).view(np.recarray)
    return Ranked(np.zeros(num_pages, dtype=np.int64), ranks, now)


def stamp(memory: Ranked, block: int) -> None:
    """Let a block that is not in the heap rank behind all that were stamped before it."""
    memory.now[0].clock += 1
    memory.ranks[block].since = memory.now[0].clock


def push(memory: Ranked, block: int) -> None:
    """Add a block."""
    size = memory.now[0].entries
    memory.now[0].entries = size + 1
    _raise(memory, size, block)


def pop(memory: Ranked) -> int:
    """Remove and return the block that goes first."""
    block = memory.heap[0]
    remove(memory, block)
    return block


def remove(memory: Ranked, block: int) -> None:
    """Take a block out, wherever it stands."""
    place, last = memory.ranks[block].place, memory.now[0].entries - 1
    memory.now[0].entries = last
    if place == last:
        return
    moved = memory.heap[last]
    if _before(memory, moved, block):
        _raise(memory, place, moved)
    else:
        _sink(memory, place, moved)


def _raise(memory: Ranked, place: int, block: int) -> None:
    """Put a block at this place, or above it as far as it goes before those there."""
    while place:
        above = (place - 1) // 2
        if not _before(memory, block, memory.heap[above]):
            break
        _put(memory, place, memory.heap[above])
        place = above
    _put(memory, place, block)


def _sink(memory: Ranked, place: int, block: int) -> None:
    """Put a block at this place, or below it as long as one there goes before it."""
    size = memory.now[0].entries
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and _before(memory, memory.heap[below + 1], memory.heap[below]):
            below += 1
        if not _before(memory, memory.heap[below], block):
            break
        _put(memory, place, memory.heap[below])
        place = below
    _put(memory, place, block)


def _put(memory: Ranked, place: int, block: int) -> None:
    memory.heap[place] = block
    memory.ranks[block].place = place


def _before(memory: Ranked, one: int, other: int) -> bool:
    a, b = memory.ranks[one], memory.ranks[other]
    return a.hits < b.hits or (a.hits == b.hits and a.since < b.since)
