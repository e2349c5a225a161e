"""Pages over arrays: the free ring, the rows of a page table, and what moves between them.

`FreeQueue` and `PageTable` call these functions as they stand; the compiled loop calls them
compiled.  A row is a sequence's, or of the virtual allocator a virtual range.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from allocators.base import IntArray

#: rules of one row take the rows of a batch too, as columns
Number = TypeVar("Number", int, IntArray)


class Pages(NamedTuple):
    """The arrays of a page table with a first-in first-out ring of free pages.

    `table` [rows, pages] of page numbers, -1 where there is none; `count` [rows]; `ref` [pages]
    holders of each; `ring` [pages] and `ends`, (where the first free page is, how many there are).
    """

    table: IntArray
    count: IntArray
    ref: IntArray
    ring: IntArray
    ends: IntArray
    page_tokens: int


# -- the free ring -----------------------------------------------------------------------------
def take(ring: IntArray, ends: IntArray, n: int) -> IntArray:
    """Remove and return the `n` pages that have been free for longest."""
    pages = peek(ring, ends[0], n)
    ends[0] = (ends[0] + n) % len(ring)
    ends[1] -= n
    return pages


def give(ring: IntArray, ends: IntArray, pages: IntArray) -> None:
    """Append pages; the first of them will be taken first."""
    start, n = (ends[0] + ends[1]) % len(ring), len(pages)
    before_end = len(ring) - start
    if n <= before_end:
        ring[start : start + n] = pages
    else:
        ring[start:] = pages[:before_end]
        ring[: n - before_end] = pages[before_end:]
    ends[1] += n


def peek(ring: IntArray, start: int, n: int) -> IntArray:
    """Return a copy of `n` entries of the ring from `start` on."""
    stop = start + n
    if stop <= len(ring):
        return ring[start:stop].copy()
    return np.concatenate((ring[start:], ring[: stop - len(ring)]))


# -- growth ------------------------------------------------------------------------------------
def lacking(count: Number, length: Number, n: int, page_tokens: int) -> Number:
    """Return how many pages a row of `count` lacks to hold `n` slots more than its `length`."""
    return np.maximum((length + (n + page_tokens - 1)) // page_tokens - count, 0)


def append(pages: Pages, row: int, n: int) -> None:
    """Give a row `n` more pages; the caller makes sure of room first."""
    put(pages, row, take(pages.ring, pages.ends, n))


def put(pages: Pages, row: int, fresh: IntArray) -> None:
    """Write fresh pages behind those of a row."""
    count = pages.count[row]
    pages.table[row, count : count + len(fresh)] = fresh
    pages.ref[fresh] = 1
    pages.count[row] = count + len(fresh)


# -- release -----------------------------------------------------------------------------------
def leave(pages: Pages, row: int, keep: int) -> tuple[IntArray, IntArray]:
    """Take from a row all pages after the first `keep`, which it has.

    Returns them, deepest first, and those of them that nobody else holds.
    """
    held = pages.table[row, keep : pages.count[row]]
    gone = held[::-1].copy()
    held[:] = -1
    pages.count[row] = keep
    holders = pages.ref[gone] - 1  # a page stands at most once in a row
    pages.ref[gone] = holders
    return gone, gone[holders == 0]


def drop(pages: Pages, row: int, keep: int) -> IntArray:
    """Do as `leave`, and free the pages that nobody else holds; return all that are taken."""
    gone, unheld = leave(pages, row, keep)
    give(pages.ring, pages.ends, unheld)
    return gone


# -- views -------------------------------------------------------------------------------------
def unwritten(
    count: Number, length: Number, final: Number, page_tokens: int
) -> tuple[Number, Number]:
    """Return the slots that a row holds and has not written, and those that it will write."""
    room = count * page_tokens - length
    return room, np.minimum(np.maximum(final - length, 0), np.maximum(room, 0))
