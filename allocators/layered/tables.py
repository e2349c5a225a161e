"""Page tables of several layer groups with one set of reference counts.

Each table lists, for each row, the page of each column; the columns of a row that stand before
`gone` were given back because they lie behind what later tokens read, and are -1 from then on.

    table 0, full       row 3   [ 7 | 2 | 9 | 4 ]       count 4, gone 0
    table 1, sliding    row 3   [ . | . | 5 | 8 ]       count 4, gone 2

The order of events is that of serving row after row: a row's pages go table by table, deepest
first, and come table by table.  A page of one table is never one of another at the same time.
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from allocators.layered.pools import Pools
from allocators.layered.shapes import NEVER, TableShapes
from allocators.page_table import NO_PAGES

#: entries of tables, in order: which table, row and column each stands in, and its page
Entries = tuple[IntArray, IntArray, IntArray, IntArray]
NO_ENTRIES: Entries = (NO_PAGES, NO_PAGES, NO_PAGES, NO_PAGES)


class LayerTables:
    """Rows of pages in several tables; the caller makes sure of room first."""

    def __init__(self, shapes: TableShapes, rows: int, pools: Pools) -> None:
        self.shapes, self.pools = shapes, pools
        self.count: IntArray = np.zeros((len(shapes), rows), dtype=np.int64)
        self.gone: IntArray = np.zeros((len(shapes), rows), dtype=np.int64)
        self.ref: IntArray = np.zeros(pools.num_pages, dtype=np.int64)
        #: tables and pages of the entries that were dropped since somebody began to watch, in order
        self.since: list[tuple[IntArray, IntArray]] | None = None
        #: entries of all tables that hold a page, and pages that each table holds
        self.entries = 0
        self.held: IntArray = np.zeros(len(shapes), dtype=np.int64)
        # One array behind all tables, so that entries of several are read and written at once.
        sizes = shapes.width * rows
        self._base: IntArray = np.cumsum(sizes) - sizes
        self._flat = np.full(int(sizes.sum()), -1, dtype=np.int64)

    @property
    def table(self) -> list[IntArray]:
        """The page of each row and column of each table, -1 where there is none."""
        rows, width = self.count.shape[1], self.shapes.width
        return [
            self._flat[start : start + rows * columns].reshape(rows, columns)
            for start, columns in zip(self._base.tolist(), width.tolist(), strict=True)
        ]

    @property
    def is_shared(self) -> bool:
        """Whether any page stands in several rows."""
        return self.entries > int(self.held.sum())

    # -- growth ------------------------------------------------------------------------------
    def lacking(self, rows: IntArray, lengths: IntArray) -> IntArray:
        """Return how many pages each row lacks to be so long, [tables, rows]."""
        return np.maximum(self.shapes.columns(lengths) - self.count[:, rows], 0)

    def behind(self, rows: IntArray, positions: IntArray) -> IntArray:
        """Return how many more columns a token at `positions` leaves behind, [tables, rows]."""
        at = self.shapes.dropping
        more = np.zeros((len(self.shapes), len(rows)), dtype=np.int64)
        if len(at):
            columns = np.minimum(self.shapes.behind(positions), self.count[at[:, None], rows])
            more[at] = np.maximum(columns - self.gone[at[:, None], rows], 0)
        return more

    def until(self, rows: IntArray) -> IntArray:
        """Return up to which length rows take no page and leave none behind, [rows]."""
        shapes = self.shapes
        full = self.count[:, rows] * shapes.page_tokens - shapes.before
        full = np.where(shapes.grows, full, NEVER).min(axis=0)
        return np.minimum(full, shapes.leaves_at(self.gone[shapes.dropping[:, None], rows]))

    def leading(self, rows: IntArray, columns: IntArray) -> Entries:
        """Return the next `columns` entries of each row and table to go, [tables, rows].

        Row after row, table by table, deepest first.
        """
        row, table, k = spread(columns)
        first = self.gone[table, rows[row]] + columns[table, row] - 1
        return self.entries_at(table, rows[row], first - k)

    def unheld(self, pages: IntArray) -> np.ndarray:
        """Say of each of these entries' pages whether it is free once they are all gone.

        Of several entries of a page the last one says so.
        """
        if not self.is_shared:
            return np.ones(len(pages), dtype=bool)
        _, inverse, times = np.unique(pages, return_inverse=True, return_counts=True)
        last = np.zeros(len(times), dtype=np.int64)
        last[inverse] = np.arange(len(pages))
        is_last = last[inverse] == np.arange(len(pages))
        return is_last & (self.ref[pages] == times[inverse])

    def drop(self, entries: Entries) -> None:
        """Take these entries out; give back the pages that nobody holds any more."""
        table, row, column, pages = entries
        if not len(pages):
            return
        free = self.unheld(pages)
        if self.since is not None:
            self.since.append((table, pages))
        self._flat[self._place(table, row, column)] = -1
        np.subtract.at(self.ref, pages, 1)
        self.entries -= len(pages)
        self._give(table[free], pages[free])

    def forget(self, rows: IntArray, columns: IntArray) -> None:
        """Drop the next `columns` of each row and table, which lie behind, [tables, rows]."""
        if columns.any():
            self.leave(rows, columns, self.leading(rows, columns))

    def leave(self, rows: IntArray, columns: IntArray, entries: Entries) -> None:
        """Do so where these `entries` are what goes."""
        self.drop(entries)
        self.gone[:, rows] += columns

    def extend(self, rows: IntArray, columns: IntArray, due: IntArray | None = None) -> Entries:
        """Append so many fresh pages to each row and table, [tables, rows]; return them.

        Row after row, table by table.  `due` [tables, rows] are the slots that each has left
        before: then in the order in which growth by one slot a step would ask for them.
        """
        row, table, k = spread(columns)
        if not len(row):
            return NO_ENTRIES
        if due is not None:
            order = np.argsort(
                due[table, row] + k * self.shapes.page_tokens[table, 0], kind="stable"
            )
            row, table, k = row[order], table[order], k[order]
        column = self.count[table, rows[row]] + k
        pages = self.pools.take(table, rows[row])
        self._flat[self._place(table, rows[row], column)] = pages
        self.ref[pages] = 1
        self.entries += len(pages)
        self.held += columns.sum(axis=1)
        self.count[:, rows] += columns
        return table, rows[row], column, pages

    def to_copy(self, rows: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
        """Return (table, index into `rows`) of each page that must be copied before a write.

        A row writes into its last page, if that is partly filled, and into its state.  Of several
        writers that hold a page among themselves the last one writes in place (PagedAttention,
        section 4.4).
        """
        if not self.is_shared:
            return NO_PAGES, NO_PAGES
        shapes, t = self.shapes, self.shapes.page_tokens
        slots = shapes.slots(lengths)
        partial = np.where(shapes.grows, slots % t != 0, shapes.rewritten & (lengths > 0))
        column = np.minimum(np.where(shapes.grows, (slots - 1) // t, 0), shapes.width[:, None] - 1)
        pages = self.at(rows, np.maximum(column, 0))
        table, at = np.nonzero(partial & (pages >= 0) & (self.ref[pages] > 1))
        if not len(table):
            return NO_PAGES, NO_PAGES
        pages = pages[table, at]
        shared, inverse, writers = np.unique(pages, return_inverse=True, return_counts=True)
        last = np.zeros(len(shared), dtype=np.int64)
        last[inverse] = np.arange(len(pages))
        copies = np.ones(len(pages), dtype=bool)
        copies[last[writers == self.ref[shared]]] = False
        table, at = table[copies], at[copies]
        order = np.argsort(at, kind="stable")
        return table[order], at[order]

    def copy_on_write(self, tables: IntArray, rows: IntArray, lengths: IntArray) -> IntArray:
        """Give each of these its own copy of its last page.

        Returns rows of (source slot, destination slot, slots, layer group).
        """
        columns = np.zeros_like(rows)
        slots = np.ones_like(rows)
        for index, shape in enumerate(self.shapes.tables):
            at = tables == index
            if shape.grows:
                filled = lengths[at] + shape.before
                columns[at] = filled // shape.page_tokens
                slots[at] = filled % shape.page_tokens
        place = self._place(tables, rows, columns)
        old, new = self._flat[place], self.pools.take(tables, rows)
        np.subtract.at(self.ref, old, 1)
        self.ref[new] = 1
        self.held += np.bincount(tables, minlength=len(self.held))
        self._flat[place] = new
        return self.moves(tables, old, new, slots)

    def moves(self, tables: IntArray, old: IntArray, new: IntArray, slots: IntArray) -> IntArray:
        """Return rows of (from slot, to slot, slots, layer group): page by page, first slots."""
        found = []
        for index, shape in enumerate(self.shapes.tables):
            at, t = tables == index, shape.page_tokens
            found += [
                np.column_stack([old[at] * t, new[at] * t, slots[at], np.full(at.sum(), member)])
                for member in shape.members
            ]
        return np.concatenate(found).astype(np.int64)

    # -- sharing -----------------------------------------------------------------------------
    def start(self, row: int, first: IntArray, pages: list[IntArray]) -> None:
        """Let an empty row start with these pages of each table, from column `first` on."""
        for index, held in enumerate(pages):
            at = int(first[index])
            self.table[index][row, at : at + len(held)] = held
            self.held[index] += np.count_nonzero(self.ref[held] == 0)
            self.ref[held] += 1
            self.entries += len(held)
            self.gone[index, row], self.count[index, row] = at, at + len(held)

    def restore(
        self, index: int, rows: IntArray, count: IntArray, gone: IntArray, entries: IntArray
    ) -> IntArray:
        """Let empty rows of a table have fresh pages; return them.

        `entries` [rows, columns] say which of these pages each column has, -1 for none.
        """
        used = entries >= 0
        owner = np.zeros(int(entries.max(initial=-1)) + 1, dtype=np.int64)
        owner[entries[used]] = rows[np.nonzero(used)[0]]
        pages = self.pools.take(np.full_like(owner, index), owner)
        held = pages[entries[used]]
        row, column = np.nonzero(used)
        self.table[index][rows[row], column] = held
        np.add.at(self.ref, held, 1)
        self.count[index, rows], self.gone[index, rows] = count, gone
        self.entries += len(held)
        self.held[index] += len(pages)
        return pages

    def share(self, parent: int, children: IntArray) -> None:
        """Let empty rows start with all pages of `parent`."""
        for index, table in enumerate(self.table):
            first, stop = int(self.gone[index, parent]), int(self.count[index, parent])
            pages = table[parent, first:stop]
            table[children, first:stop] = pages
            self.ref[pages] += len(children)
            self.entries += len(pages) * len(children)
        self.count[:, children] = self.count[:, [parent]]
        self.gone[:, children] = self.gone[:, [parent]]

    def reassign(self, rows: IntArray, parents: IntArray) -> None:
        """Let each row hold the pages of its parent instead of its own, all at once."""
        moved = rows != parents
        rows, parents = rows[moved], parents[moved]
        if not len(rows):
            return
        gone, come = [], []
        for index, table in enumerate(self.table):
            width = int(self.count[index, np.append(rows, parents)].max(initial=0))
            old, new = table[rows, :width], table[parents, :width].copy()
            differs = old != new
            was, now = old[differs], new[differs]
            np.add.at(self.ref, now[now >= 0], 1)
            np.subtract.at(self.ref, was[was >= 0], 1)
            self.entries += int((now >= 0).sum()) - int((was >= 0).sum())
            table[rows, :width] = new
            gone.append(np.unique(was[was >= 0]))
            come.append(np.full(len(gone[-1]), index))
        self.count[:, rows] = self.count[:, parents]
        self.gone[:, rows] = self.gone[:, parents]
        pages, tables = np.concatenate(gone), np.concatenate(come)
        dead = self.ref[pages] == 0
        self._give(tables[dead], pages[dead])

    # -- release -----------------------------------------------------------------------------
    def cut(self, row: int, keep: IntArray) -> Entries:
        """Drop the pages of a row behind the first `keep` columns of each table, [tables].

        Table by table, deepest first; returns the entries that went.
        """
        keep = np.minimum(np.maximum(keep, self.gone[:, row]), self.count[:, row])
        columns = (self.count[:, row] - keep)[:, None]
        _, table, k = spread(columns)
        if not len(table):
            return NO_ENTRIES
        entries = self.entries_at(table, np.full_like(table, row), self.count[table, row] - 1 - k)
        self.drop(entries)
        self.count[:, row] = keep
        return entries

    def clear(self, row: int) -> None:
        """Drop all pages of a row."""
        self.cut(row, np.zeros(len(self.shapes), dtype=np.int64))
        self.count[:, row] = self.gone[:, row] = 0

    # -- views -------------------------------------------------------------------------------
    def at(self, rows: IntArray, column: IntArray) -> IntArray:
        """Return the page that each row has in its column of each table, [tables, rows] both."""
        return self._flat[self._base[:, None] + rows * self.shapes.width[:, None] + column]

    def pages(self, row: int, table: int) -> IntArray:
        """Return the page of each column of a row, -1 where it was given back."""
        return self.table[table][row, : int(self.count[table, row])]

    def slots(self, row: int, table: int) -> IntArray:
        """Return the slot of each place in these columns, -1 where the page was given back."""
        t, pages = self.shapes.tables[table].page_tokens, self.pages(row, table)
        return np.where(pages[:, None] < 0, -1, pages[:, None] * t + np.arange(t)).ravel()

    def _give(self, tables: IntArray, pages: IntArray) -> None:
        self.held -= np.bincount(tables, minlength=len(self.held))
        self.pools.give(tables, pages)

    def _place(self, table: IntArray, row: IntArray, column: IntArray) -> IntArray:
        return self._base[table] + row * self.shapes.width[table] + column

    def entries_at(self, table: IntArray, row: IntArray, column: IntArray) -> Entries:
        return table, row, column, self._flat[self._place(table, row, column)]

    # -- checks ------------------------------------------------------------------------------
    def check(self) -> None:
        """Assert that tables, reference counts and pools agree; O(state)."""
        counted, of = (
            np.zeros(self.pools.num_pages, dtype=np.int64),
            np.full(self.pools.num_pages, -1),
        )
        entries = 0
        for index, table in enumerate(self.table):
            column = np.arange(table.shape[1])
            held = (column < self.count[index][:, None]) & (column >= self.gone[index][:, None])
            assert (table[~held] == -1).all(), "a row has an entry where it holds no page"
            pages = table[held]
            assert (pages >= 0).all(), "a row has a hole"
            assert (of[pages] == -1).all(), "a page stands in two tables"
            of[pages] = index
            counted += np.bincount(pages, minlength=len(counted))
            entries += len(pages)
            assert self.held[index] == len(np.unique(pages)), "pages of a table are miscounted"
        assert (counted == self.ref).all(), "a reference count is not the number of holders"
        assert entries == self.entries, "entries are miscounted"
        assert (self.gone <= self.count).all(), "a row has given back what it never had"
        self.pools.check(self.ref)


def spread(columns: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return (row, table, k) of each of `columns` [tables, rows] pages: k counts from 0.

    Row after row, table by table.
    """
    row, table = np.nonzero(columns.T)
    counts = columns[table, row]
    if int(counts.sum()) == len(row):
        return row, table, np.zeros_like(row)
    k = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(row, counts), np.repeat(table, counts), k
