"""Reference-counted page tables: the mechanism that paged and virtual allocators share.

A row lists, in order, the physical pages that hold a sequence; of the virtual allocator, those of a
virtual range.  A page may stand in several rows; its reference count says in how many.  Page p
holds slots p * page_tokens up to the next page.

    row 3:   [ 7 | 2 | 9 ]        ref[7] == 2: rows 3 and 4 share their first page
    row 4:   [ 7 | 5 ]            a write to a page with ref > 1 copies it first
"""

from __future__ import annotations

import numpy as np

from allocators.base import NO_COPIES, IntArray
from allocators.rules import pages as rules

NO_PAGES = np.empty(0, dtype=np.int64)


class FreeQueue:
    """Free pages in first-in first-out order, as a ring."""

    def __init__(self, num_pages: int) -> None:
        self.ring = np.arange(num_pages, dtype=np.int64)
        self.ends = np.array([0, num_pages], dtype=np.int64)  # the first free one, how many

    def __len__(self) -> int:
        return int(self.ends[1])

    @property
    def quiet(self) -> int:
        """How many pages may be taken in one go with the same result as one by one over steps."""
        return len(self)

    def take(self, n: int) -> IntArray:
        """Remove and return the `n` pages that have been free for longest."""
        assert n <= len(self), "the caller checks before it takes"
        return rules.take(self.ring, self.ends, n)

    def give(self, pages: IntArray) -> None:
        """Append pages; the first of them will be taken first."""
        rules.give(self.ring, self.ends, pages)

    def pages(self) -> IntArray:
        """Return the free pages in the order in which they will be taken."""
        return rules.peek(self.ring, int(self.ends[0]), FreeQueue.__len__(self))


def ceil_div(a: IntArray, b: int) -> IntArray:
    return (a + (b - 1)) // b


class PageTable:
    """Rows of physical pages with reference counts; the caller makes sure of room first."""

    def __init__(self, rows: int, pages_per_row: int, num_pages: int, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.num_pages = num_pages
        self.table = np.full((rows, pages_per_row), -1, dtype=np.int64)
        self.count = np.zeros(rows, dtype=np.int64)
        self.ref = np.zeros(num_pages, dtype=np.int64)
        self.free = FreeQueue(num_pages)
        self.arrays = rules.Pages(
            self.table, self.count, self.ref, self.free.ring, self.free.ends, page_tokens
        )

    # -- growth ------------------------------------------------------------------------------
    def missing(self, rows: IntArray, lengths: IntArray, n: int) -> IntArray:
        """Return how many pages each row lacks to hold `n` more slots, [rows]."""
        return rules.lacking(self.count[rows], lengths, n, self.page_tokens)

    def lacking(self, rows: IntArray, lengths: IntArray, n: int) -> tuple[IntArray, ...]:
        """Return which of `rows` lack pages to hold `n` more slots, as indices into them.

        And of each of those how many it lacks, and how many slots it has left before.
        """
        room = self.count[rows] * self.page_tokens - lengths
        at = np.flatnonzero(room < n)
        room = room[at]
        return at, -((room - n) // self.page_tokens), room

    @property
    def is_shared(self) -> bool:
        """Whether any page stands in several rows: then the rows have more than there are."""
        return int(self.count.sum()) + len(self.free) > self.num_pages

    def to_copy(self, rows: IntArray, lengths: IntArray) -> IntArray:
        """Return the indices into `rows` that must copy their partly filled page before a write.

        Of several writers that hold a page among themselves, the last one writes in place
        (PagedAttention, section 4.4).
        """
        if not self.is_shared:
            return NO_PAGES
        pages = self.table[rows, self._last_column(lengths)]
        shared = self.ref[pages] > 1
        if not shared.any():
            return NO_PAGES
        at = np.flatnonzero(shared & (lengths % self.page_tokens != 0) & (pages >= 0))
        if not len(at):
            return NO_PAGES
        shared, inverse, writers = np.unique(pages[at], return_inverse=True, return_counts=True)
        last = np.zeros(len(shared), dtype=np.int64)
        last[inverse] = np.arange(len(at))
        copies = np.ones(len(at), dtype=bool)
        copies[last[writers == self.ref[shared]]] = False
        return at[copies]

    def _last_column(self, lengths: IntArray) -> IntArray:
        """Return where rows have the page of their last slot; one may run over its last page."""
        return np.minimum((lengths - 1) // self.page_tokens, self.table.shape[1] - 1)

    def copy_on_write(self, rows: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
        """Give each row its own copy of its partly filled page.

        Returns the copies (source slot, destination slot, slots) and the pages given up, [rows].
        """
        if not len(rows):
            return NO_COPIES, NO_PAGES
        column = lengths // self.page_tokens
        old, new = self.table[rows, column], self.free.take(len(rows))
        np.subtract.at(self.ref, old, 1)
        self.ref[new] = 1
        self.table[rows, column] = new
        t = self.page_tokens
        return np.column_stack([old * t, new * t, lengths % t]), old

    def extend(self, rows: IntArray, counts: IntArray) -> IntArray:
        """Append `counts[i]` fresh pages to each row, in turns: the first of each row, the next ...

        Returns (row, column, page) of each, in that order.
        """
        at = np.flatnonzero(counts)
        if not len(at):
            return NO_COPIES
        return np.column_stack(self.spread(rows[at], counts[at], np.zeros_like(at)))

    def spread(
        self, rows: IntArray, counts: IntArray, room: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Append one or more fresh pages to each row; return row, column and page of each.

        Pages are handed out in the order in which growth by one slot a step would ask for them, so
        that growing by n at once and n times by one end in the same state.  `room` are the slots
        that each row has left before.
        """
        row, column, due = rows, self.count[rows], room
        if len(rows) < int(counts.sum()):
            owner = np.repeat(np.arange(len(rows)), counts)
            k = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
            row, column, due = rows[owner], column[owner] + k, due[owner] + k * self.page_tokens
        if due.any():
            order = np.argsort(due, kind="stable")
            row, column = row[order], column[order]
        pages = self.free.take(len(row))
        self.table[row, column] = pages
        self.ref[pages] = 1
        self.count[rows] += counts
        return row, column, pages

    def append(self, row: int, n: int) -> IntArray:
        """Append `n` fresh pages to one row; return them."""
        pages = self.free.take(n)
        rules.put(self.arrays, row, pages)
        return pages

    # -- sharing -----------------------------------------------------------------------------
    def share(self, parent: int, children: IntArray, pages: int) -> None:
        """Let empty rows `children` start with the first `pages` pages of `parent`."""
        self.table[children, :pages] = self.table[parent, :pages]
        self.count[children] = pages
        self.ref[self.table[parent, :pages]] += len(children)

    def reassign(
        self, rows: IntArray, parents: IntArray, pages: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Let the first `pages[i]` pages of rows[i] become those of parents[i], all at once.

        Returns (row, column, page) of the entries given up and of those that replace them.
        """
        moved = rows != parents
        rows, parents, pages = rows[moved], parents[moved], pages[moved]
        if not len(rows):
            return NO_COPIES, NO_COPIES
        width = int(pages.max())
        old, new = self.table[rows, :width], self.table[parents, :width]
        at, column = np.nonzero((old != new) & (np.arange(width) < pages[:, None]))
        if not len(at):
            return NO_COPIES, NO_COPIES
        row, gone, come = rows[at], old[at, column], new[at, column]
        np.add.at(self.ref, come, 1)
        np.subtract.at(self.ref, gone, 1)
        self.table[row, column] = come
        dead = np.unique(gone)
        self.free.give(dead[self.ref[dead] == 0])
        return np.column_stack([row, column, gone]), np.column_stack([row, column, come])

    # -- release -----------------------------------------------------------------------------
    def drop(self, row: int, keep: int = 0) -> IntArray:
        """Take from a row all pages after the first `keep`, deepest first; return them."""
        if self.count[row] <= keep:
            return NO_PAGES
        pages, unheld = rules.leave(self.arrays, row, keep)
        self.free.give(unheld)
        return pages

    # -- views -------------------------------------------------------------------------------
    def addresses(self, row: int, length: int) -> IntArray:
        """Return the physical slot of each position, [length]."""
        position = np.arange(length)
        t = self.page_tokens
        return self.table[row, position // t] * t + position % t

    def extents(self, row: int) -> IntArray:
        """Return (first slot, slots) of each page of a row, [pages, 2]."""
        pages = self.table[row, : int(self.count[row])]
        return np.column_stack([pages, np.ones_like(pages)]) * self.page_tokens

    def distinct_pages(self, rows: IntArray, lengths: IntArray) -> int:
        """Count the pages that hold at least one slot of these rows, shared ones once."""
        used = np.arange(self.table.shape[1]) < ceil_div(lengths, self.page_tokens)[:, None]
        return len(np.unique(self.table[rows][used]))

    def slack(
        self, rows: IntArray, lengths: IntArray, finals: IntArray, steps: int, elastic: bool
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Return (unwritten slots, those of them that will be written, pages to come), [steps].

        Looks back over `steps` steps of growth by one slot each, the present last.  `elastic` rows
        take pages as they grow; others held what they hold now all along.  A partly filled page
        that several rows share counts once.
        """
        t = self.page_tokens
        pages = self.count[rows]
        if steps == 1:
            room, later = rules.unwritten(pages, lengths, finals, t)
            spare, soon = int(room.sum()), int(later.sum())
            twice, twice_soon = self.shared_slack(rows, lengths, finals)
            return np.array([spare - twice]), np.array([soon - twice_soon]), np.zeros(1, np.int64)
        # Only rows that own their last page grow quietly, so nothing is shared here but full pages.
        past = lengths - np.arange(steps - 1, -1, -1)[:, None]
        held = ceil_div(past, t) if elastic else pages[None, :]
        room, later = rules.unwritten(held, past, finals, t)
        to_come = (pages - held).sum(axis=1) if elastic else np.zeros(steps, np.int64)
        return room.sum(axis=1), later.sum(axis=1), to_come

    def shared_slack(self, rows: IntArray, lengths: IntArray, finals: IntArray) -> tuple[int, int]:
        """Return the slack of partly filled pages that is no slack, or another row's, as `slack`.

        Of the rows that share a page only the one that fills it furthest has what is left of it,
        and none has if a row that goes on beyond this page fills it.
        """
        if not self.is_shared:
            return 0, 0
        t = self.page_tokens
        partial = np.flatnonzero(lengths % t)
        column = self._last_column(lengths[partial])
        pages = self.table[rows[partial], column]
        shared = self.ref[pages] > 1
        if not shared.any():
            return 0, 0
        partial, column, pages = partial[shared], column[shared], pages[shared]
        own = lengths[partial] % t
        # A page stands in the same column of all its holders.
        holds = self.table[rows[:, None], column] == pages
        filled = np.where(holds, np.minimum(lengths[:, None] - column * t, t), 0).max(axis=0)
        furthest = np.flatnonzero(own == filled)
        again = np.ones(len(pages), dtype=bool)
        again[furthest[np.unique(pages[furthest], return_index=True)[1]]] = False
        left = (t - own)[again]
        soon = np.minimum(left, np.maximum(finals - lengths, 0)[partial[again]])
        return int(left.sum()), int(soon.sum())

    # -- checks ------------------------------------------------------------------------------
    def check(self) -> None:
        """Assert that tables, reference counts and the free queue agree; O(state)."""
        held = np.arange(self.table.shape[1]) < self.count[:, None]
        assert (self.table[~held] == -1).all(), "a row has an entry behind its last page"
        pages = self.table[held]
        assert (pages >= 0).all(), "a row has a hole"
        counted = np.bincount(pages, minlength=self.num_pages)
        assert (counted == self.ref).all(), "a reference count is not the number of holders"
        free = self.free.pages()
        assert len(np.unique(free)) == len(free), "a page is free twice"
        assert (self.ref[free] == 0).all(), "a free page is in use"
        assert len(free) + int((self.ref > 0).sum()) == self.num_pages, "a page is lost"
