"""Pages over arrays: the free ring, the rows of a page table, and what moves between them.

`FreeQueue` and `PageTable` call these functions as they stand; the compiled loop calls them
compiled.  A row is a sequence's, or of the virtual allocator a virtual range.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from allocators.base import IntArray
from allocators.rules.answers import Ask

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


def take_one(pages: Pages) -> int:
    """Remove and return the page that has been free for longest."""
    page = pages.ring[pages.ends[0]]
    pages.ends[0] = (pages.ends[0] + 1) % len(pages.ring)
    pages.ends[1] -= 1
    return page


def give_one(pages: Pages, page: int) -> None:
    """Append a page."""
    pages.ring[(pages.ends[0] + pages.ends[1]) % len(pages.ring)] = page
    pages.ends[1] += 1


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


# -- groups ------------------------------------------------------------------------------------
# The rows of a group are equally long, stand one behind the other, and share pages with nobody
# else; `width` is how many a group has.  Two that share a page share all before it.
def when_forked(ask: Ask, sequences: int, page_tokens: int, shares: bool) -> int:
    """Return the pages that `sequences` need at `whole_tokens`, those forked included.

    `shares`: a fork shares the full pages of the request's own prompt, and all of them as long as
    nothing follows it.  Without a fork to come it is those of one sequence.
    """
    whole = -(-max(ask.tokens, ask.whole_tokens) // page_tokens)
    if sequences >= ask.sequences:
        return whole
    shared = 0
    if shares:
        diverged = ask.whole_tokens > ask.prompt_tokens
        shared = ask.prompt_tokens // page_tokens if diverged else whole
    return shared + ask.sequences * (whole - shared)


def share(pages: Pages, parent: int, child: int, n: int) -> None:
    """Let an empty row start with the first `n` pages of another."""
    for column in range(n):
        page = pages.table[parent, column]
        pages.table[child, column] = page
        pages.ref[page] += 1
    pages.count[child] = n


def last_column(pages: Pages, length: int) -> int:
    """Return where a row has the page of its last slot; one may run over its last page."""
    return min((length - 1) // pages.page_tokens, pages.table.shape[1] - 1)


def shares_tail(pages: Pages, row: int, length: int) -> bool:
    """Say whether others hold the partly filled page of a row, too."""
    if length % pages.page_tokens == 0:
        return False
    page = pages.table[row, last_column(pages, length)]
    return page >= 0 and pages.ref[page] > 1


def again(pages: Pages, rows: IntArray, at: int, column: int, width: int) -> bool:
    """Say whether a row of the group that stands before `rows[at]` holds its page as well."""
    page = pages.table[rows[at], column]
    for other in range(max(0, at - width + 1), at):
        if pages.table[rows[other], column] == page:
            return True
    return False


def tail_again(pages: Pages, rows: IntArray, at: int, length: int, width: int) -> bool:
    """Say the same of its partly filled page."""
    if not shares_tail(pages, rows[at], length):
        return False
    return again(pages, rows, at, last_column(pages, length), width)


def copies_due(pages: Pages, rows: IntArray, length: IntArray, width: int) -> int:
    """Return how many copy their partly filled page before a write; `rows` are whole groups.

    Of those that hold a page the last one writes in place (PagedAttention, section 4.4).
    """
    copies = 0
    for i in range(len(rows)):
        copies += tail_again(pages, rows, i, length[rows[i]], width)
    return copies


def copy_tails(pages: Pages, rows: IntArray, length: IntArray) -> int:
    """Give each but the last holder its own copy of its partly filled page; return the slots."""
    copied = 0
    for row in rows:
        if shares_tail(pages, row, length[row]):
            column, new = last_column(pages, length[row]), take_one(pages)
            pages.ref[pages.table[row, column]] -= 1
            pages.ref[new] = 1
            pages.table[row, column] = new
            copied += length[row] % pages.page_tokens
    return copied


def extend_by_turns(pages: Pages, rows: IntArray, lacks: IntArray) -> int:
    """Append the pages that rows lack: the first of each, then the second of each, and so on.

    None behind a row's last column.  Returns how many.
    """
    appended, most = 0, 0
    for lack in lacks:
        most = max(most, lack)
    for turn in range(most):
        for i in range(len(rows)):
            row = rows[i]
            if lacks[i] > turn and pages.count[row] < pages.table.shape[1]:
                page = take_one(pages)
                pages.table[row, pages.count[row]] = page
                pages.ref[page] = 1
                pages.count[row] += 1
                appended += 1
    return appended


def reassign(pages: Pages, rows: IntArray, parents: IntArray, length: IntArray, width: int) -> int:
    """Let each row hold what the `parents[i]`-th of its group holds; return the entries changed.

    Pages that nobody holds any more are free, in the order of their numbers.
    """
    changed, freed, old = 0, 0, np.empty(width, dtype=np.int64)
    for first in range(0, len(rows), width):
        column, more = -(-length[rows[first]] // pages.page_tokens), 1
        while column and more:
            column -= 1
            more = 0
            for i in range(width):
                old[i] = pages.table[rows[first + i], column]
            for i in range(width):
                come = old[parents[first + i]]
                if come != old[i]:
                    pages.table[rows[first + i], column] = come
                    pages.ref[come] += 1
                    pages.ref[old[i]] -= 1
                    more += 1
            changed += more
            for i in range(width if more else 0):
                if not pages.ref[old[i]]:
                    pages.ref[old[i]] = -1  # given back once
                    give_one(pages, old[i])
                    freed += 1
    _sort_last(pages, freed)
    return changed


def _sort_last(pages: Pages, n: int) -> None:
    """Sort the `n` pages that were freed last, which have no holder (a shell sort)."""
    ring = pages.ring
    first = pages.ends[0] + pages.ends[1] - n
    for i in range(n):
        pages.ref[ring[(first + i) % len(ring)]] = 0
    gap = n // 2
    while gap:
        for i in range(gap, n):
            page, at = ring[(first + i) % len(ring)], i
            while at >= gap and ring[(first + at - gap) % len(ring)] > page:
                ring[(first + at) % len(ring)] = ring[(first + at - gap) % len(ring)]
                at -= gap
            ring[(first + at) % len(ring)] = page
        gap //= 2


def slack_again(
    pages: Pages, rows: IntArray, finals: IntArray, length: IntArray, width: int
) -> tuple[int, int]:
    """Return the slots left in partly filled pages that others hold too, and how many get written.

    Of each page once for every row that holds it, but the first.
    """
    twice, soon = 0, 0
    for i in range(len(rows)):
        if rows[i] >= 0 and tail_again(pages, rows, i, length[rows[i]], width):
            left = pages.page_tokens - length[rows[i]] % pages.page_tokens
            twice += left
            soon += min(left, max(finals[i] - length[rows[i]], 0))
    return twice, soon


def distinct(pages: Pages, rows: IntArray, length: IntArray) -> int:
    """Count the pages that hold at least one slot of the rows of one group, shared ones once."""
    found = 0
    for i in range(len(rows)):
        used = -(-length[rows[i]] // pages.page_tokens)
        for column in range(min(used, pages.table.shape[1])):
            found += not again(pages, rows, i, column, len(rows))
    return found


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


def rows_held(pages: Pages, length: int) -> int:
    """Return how many rows of this length an empty table holds."""
    return len(pages.ref) // -(-length // pages.page_tokens)
