"""Cached blocks by rank over arrays: which of them `fifo` and `lfu` evict.

A second text of `allocators/prefix/orders.py`, where a heap of tuples with stale entries is faster
in Python; here each block has one place in the heap, from which it can be taken.  The heap stands
in the `heap` of the records of `cached.RANK`, the next to go first.
"""

from __future__ import annotations

from typing import Any


def stamp(memory: Any, block: int) -> None:
    """Let a block that is not in the heap rank behind all that were stamped before it."""
    memory.counts[0].clock += 1
    memory.ranks[block].since = memory.counts[0].clock


def push(memory: Any, block: int) -> None:
    """Add a block."""
    size = memory.counts[0].ranked
    memory.counts[0].ranked = size + 1
    _raise(memory, size, block)


def pop(memory: Any) -> int:
    """Remove and return the block that goes first."""
    block = memory.ranks[0].heap
    remove(memory, block)
    return block


def remove(memory: Any, block: int) -> None:
    """Take a block out, wherever it stands."""
    place, last = memory.ranks[block].place, memory.counts[0].ranked - 1
    memory.counts[0].ranked = last
    if place == last:
        return
    moved = memory.ranks[last].heap
    if _before(memory, moved, block):
        _raise(memory, place, moved)
    else:
        _sink(memory, place, moved)


def _raise(memory: Any, place: int, block: int) -> None:
    """Put a block at this place, or above it as far as it goes before those there."""
    while place:
        above = (place - 1) // 2
        if not _before(memory, block, memory.ranks[above].heap):
            break
        _put(memory, place, memory.ranks[above].heap)
        place = above
    _put(memory, place, block)


def _sink(memory: Any, place: int, block: int) -> None:
    """Put a block at this place, or below it as long as one there goes before it."""
    size = memory.counts[0].ranked
    while 2 * place + 1 < size:
        below = 2 * place + 1
        other = min(below + 1, size - 1)
        if _before(memory, memory.ranks[other].heap, memory.ranks[below].heap):
            below = other
        if not _before(memory, memory.ranks[below].heap, block):
            break
        _put(memory, place, memory.ranks[below].heap)
        place = below
    _put(memory, place, block)


def _put(memory: Any, place: int, block: int) -> None:
    memory.ranks[place].heap = block
    memory.ranks[block].place = place


def _before(memory: Any, one: int, other: int) -> bool:
    a, b = memory.ranks[one], memory.ranks[other]
    return a.hits < b.hits or (a.hits == b.hits and a.since < b.since)
