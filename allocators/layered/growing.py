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
    """
    step = 0
    while True:
        step = max(step, int((until[rows] - lengths).min()))
        if step >= n:
            return
        at = np.flatnonzero(until[rows] <= lengths + step)
        here, now = rows[at], lengths[at] + step
        asked = growth(tables, here, now, 1, now)
        granted = serves(tables, pools, asked)
        assert granted, "steps were promised that do not fit"
        carry_out(tables, asked, 1)
        until[here] = tables.until(here)
        step += 1


def check(tables: LayerTables, until: IntArray, lengths: IntArray) -> None:
    """Assert that what rows are known to do without, [all rows], they can."""
    told = np.flatnonzero(until)
    assert (until[told] <= tables.until(told)).all(), "a row expects too little"
    own = tables.to_copy(told, lengths[told])[0]
    assert not len(own), "a row would write into a page that it shares"
