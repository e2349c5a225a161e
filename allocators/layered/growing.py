"""What a growth does to page tables, worked out once: asked of the pools first, then carried out.

Most rows of a batch that decodes fill the next slot of a page of their own.  Of each row it is
known since its last growth up to which length that goes on, so that only the others are looked at:

    row 3, full, pages of 4       [ 7 | 2 | 9 ]    until 12: there it takes a page
    row 3, sliding, window 6      [ . | 5 | 8 ]    until 12: a token at 13 leaves column 1 behind
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.layered.pools import PagePools
from allocators.layered.tables import NO_ENTRIES, Entries, LayerTables


class Growth(NamedTuple):
    """Rows that take a page, copy one or leave one behind when they grow; the others do nothing.

    lengths: [rows] before it.  behind, takes: [tables, rows] pages that go, and that come beside
    the copies.  leaving: the entries that go.  copies: of each page that is copied its table, and
    the index of its row.
    """

    rows: IntArray
    lengths: IntArray
    behind: IntArray
    leaving: Entries
    copies: tuple[IntArray, IntArray]
    takes: IntArray


def growth(
    tables: LayerTables, rows: IntArray, lengths: IntArray, n: int, queries: IntArray | None
) -> Growth:
    """Return what it takes that these rows grow by `n` slots, [rows] of lengths.

    `queries` are the first positions that they compute, which leave pages behind; None: nothing is
    given back.
    """
    behind, leaving = np.zeros((len(tables.shapes), len(rows)), dtype=np.int64), NO_ENTRIES
    if queries is not None:
        behind = tables.behind(rows, queries)
        if behind.any():
            leaving = tables.leading(rows, behind)
    copies = tables.to_copy(rows, lengths)
    return Growth(rows, lengths, behind, leaving, copies, tables.lacking(rows, lengths + n))


def serves(tables: LayerTables, pools: PagePools, asked: Growth) -> bool:
    """Say whether the pools have it, for one row after the other; each gives before it takes."""
    pages = _takes(asked)
    if not pages.any() or pools.fits(pages.sum(axis=1)):
        return True  # even if nothing were given back
    return pools.serves(pages.T, *_gives(tables, asked))


def leading(tables: LayerTables, pools: PagePools, asked: Growth) -> int | None:
    """Return how many of these rows, from the first on, would be served; see `PagePools`."""
    return pools.leading(_takes(asked).T, *_gives(tables, asked))


def _takes(asked: Growth) -> IntArray:
    """Return the pages that come, copies and all, [tables, rows]."""
    if not len(asked.copies[0]):
        return asked.takes
    takes = asked.takes.copy()
    np.add.at(takes, asked.copies, 1)
    return takes


def _gives(tables: LayerTables, asked: Growth) -> tuple[IntArray, IntArray, IntArray]:
    """Return of each page that is freed its table, in which of these rows' place, and itself."""
    table, row, _, leaving = asked.leaving
    free = tables.unheld(leaving)
    order = np.argsort(asked.rows, kind="stable")
    at = order[np.searchsorted(asked.rows[order], row[free])]
    return table[free], at, leaving[free]


def carry_out(tables: LayerTables, asked: Growth, n: int) -> IntArray | None:
    """Do what was asked for, there is room; return the moves of pages that are copied, if any."""
    rows, lengths, moves = asked.rows, asked.lengths, None
    table, at = asked.copies
    if len(asked.leaving[0]):
        tables.leave(rows, asked.behind, asked.leaving)
        if len(table):  # a page that others have left is written in place
            table, at = tables.to_copy(rows, lengths)
    if len(table):
        moves = tables.copy_on_write(table, rows[at], lengths[at])
    if asked.takes.any():
        room = None
        if n > 1:
            shapes = tables.shapes
            room = tables.count[:, rows] * shapes.page_tokens - (lengths + shapes.before)
        tables.extend(rows, asked.takes, room)
    return moves


def take_steps(
    tables: LayerTables,
    pools: PagePools,
    until: IntArray,
    rows: IntArray,
    lengths: IntArray,
    n: int,
) -> None:
    """Let rows grow by a slot in each of `n` steps; they share nothing, and there is room.

    `until` [all rows] is looked at, and brought up to date; steps that touch no page are skipped.
    Of pools that are first come, first served a window's length is taken in one go: all that goes
    is given back before anything is taken, both in the order of steps.  That ends alike, since what
    is taken has been free from the start.
    """
    done, most = 0, tables.shapes.shortest_window if pools.first_come else 1
    while True:
        done = max(done, int((until[rows] - lengths).min()))
        if done >= n:
            return
        steps = min(most, n - done)
        asked = _several(tables, until, rows, lengths + done, steps) if steps > 1 else None
        if asked is None:
            steps = 1
            at = np.flatnonzero(until[rows] <= lengths + done)
            now = lengths[at] + done
            asked = growth(tables, rows[at], now, 1, now)
            granted = serves(tables, pools, asked)
            assert granted, "steps were promised that do not fit"
        carry_out(tables, asked, steps)
        until[asked.rows] = tables.until(asked.rows)
        done += steps


def _several(
    tables: LayerTables, until: IntArray, rows: IntArray, lengths: IntArray, n: int
) -> Growth | None:
    """Return what `n` steps take, what goes in their order; None if some is yet to come, too."""
    at = np.flatnonzero(until[rows] < lengths + n)
    rows, lengths = rows[at], lengths[at]
    shapes, last = tables.shapes, lengths + (n - 1)
    if (shapes.behind(last) > tables.count[shapes.dropping[:, None], rows]).any():
        return None
    asked = growth(tables, rows, lengths, n, last)
    table, row, column, _ = asked.leaving
    first = np.zeros_like(until)
    first[rows] = lengths
    step = np.maximum(shapes.left_at(table, column) - first[row], 0)
    order = np.argsort(step, kind="stable")
    table, row, column, pages = (each[order] for each in asked.leaving)
    return asked._replace(leaving=(table, row, column, pages))


def check(tables: LayerTables, until: IntArray, lengths: IntArray) -> None:
    """Assert that what rows are known to do without, [all rows], they can."""
    told = np.flatnonzero(until)
    assert (until[told] <= tables.until(told)).all(), "a row expects too little"
    own = tables.to_copy(told, lengths[told])[0]
    assert not len(own), "a row would write into a page that it shares"
