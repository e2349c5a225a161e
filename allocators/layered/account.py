"""Where the bytes of a pool are when layer groups hold different slots of the same sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.layered.tables import LayerTables
from allocators.layers import LayerGroup


class Slots(NamedTuple):
    """Bytes of slots, [steps]: read by this step or a later one, written later, written in vain."""

    token: IntArray
    reserved: IntArray
    expired: IntArray


def quick(
    tables: LayerTables,
    slot_bytes: IntArray,
    rows: IntArray,
    lengths: IntArray,
    queries: IntArray,
    finals: IntArray,
) -> Slots | None:
    """Count the slots of all rows from what each table holds, [rows]; None if that does not do.

    Each table is of one layer group, whose `slot_bytes` [tables], and nobody but these rows holds
    a page.  It does as long as no last page is shared, and no page is wholly behind.
    """
    shapes, t = tables.shapes, tables.shapes.page_tokens
    count = tables.count[:, rows]
    room = count * t - shapes.slots(lengths)
    if tables.is_shared:
        last = tables.at(rows, np.maximum(count - 1, 0))
        if ((tables.ref[last] > 1) & (room > 0)).any():
            return None
    at = shapes.dropping
    gone = tables.gone[at[:, None], rows]
    dead = shapes.first_read(queries) - gone * t[at]
    if (dead >= t[at]).any():
        return None
    later = np.where(shapes.grows, np.minimum(room, np.maximum(finals - lengths, 0)), 0)
    expired = np.zeros(len(t), dtype=np.int64)
    if len(at):
        expired[at] = dead.sum(axis=1)
        if tables.is_shared and dead.any():
            expired -= _again(tables, rows, gone, dead)
    written = tables.held * t[:, 0] - room.sum(axis=1)
    bytes_of = np.stack([written - expired, later.sum(axis=1), expired]) @ slot_bytes
    return Slots(*bytes_of[:, None])


def _again(tables: LayerTables, rows: IntArray, gone: IntArray, dead: IntArray) -> IntArray:
    """Return the dead slots that are counted again, or that another holder reads, [tables]."""
    at = tables.shapes.dropping
    columns = np.zeros((len(tables.shapes), len(rows)), dtype=np.int64)
    columns[at] = np.minimum(gone, tables.shapes.width[at, None] - 1)
    pages = tables.at(rows, columns)[at]
    table, row = np.nonzero((dead > 0) & (tables.ref[pages] > 1))
    again = np.zeros(len(tables.shapes), dtype=np.int64)
    if not len(table):
        return again
    shared, slots = pages[table, row], dead[table, row]
    each, first, times = np.unique(shared, return_index=True, return_counts=True)
    least = np.where(times == tables.ref[each], _least(shared, slots), 0)
    np.add.at(again, at[table], slots)
    np.subtract.at(again, at[table[first]], least)
    return again


def alone(
    tables: LayerTables,
    groups: tuple[LayerGroup, ...],
    rows: IntArray,
    lengths: IntArray,
    queries: IntArray,
    finals: IntArray,
) -> Slots:
    """Count the slots of rows that share no page, [steps, rows] of lengths and queries.

    `lengths` are those after each step, `queries` the first position that it computed.
    """
    token = np.zeros(len(lengths), dtype=np.int64)
    reserved, expired = np.zeros_like(token), np.zeros_like(token)
    for index, shape in enumerate(tables.shapes.tables):
        t, before = shape.page_tokens, shape.before
        gone = np.maximum(tables.gone[index, rows] * t - before, 0)
        room = -(-(lengths + before) // t) * t - (lengths + before)
        later = np.minimum(np.maximum(finals - lengths, 0), room)
        for member in shape.members:
            group = groups[member]
            if not group.grows:
                token += group.slots(lengths).sum(axis=1) * group.slot_bytes
                continue
            first = group.first_read(queries)
            live = lengths - np.maximum(first, gone)
            dead = np.maximum(first - gone, 0)
            token += live.sum(axis=1) * group.slot_bytes
            expired += dead.sum(axis=1) * group.slot_bytes
            reserved += later.sum(axis=1) * group.slot_bytes
    return Slots(token, reserved, expired)


def together(
    tables: LayerTables,
    groups: tuple[LayerGroup, ...],
    rows: IntArray,
    lengths: IntArray,
    queries: IntArray,
    finals: IntArray,
) -> Slots:
    """Count the slots of rows that may share pages, [rows]; a shared slot counts once.

    It is read if any of its holders reads it.  What is left of a page that several fill is the
    one's that fills it furthest.
    """
    token = reserved = expired = 0
    for index, shape in enumerate(tables.shapes.tables):
        t, before = shape.page_tokens, shape.before
        table, count, gone = tables.table[index], tables.count[index], tables.gone[index]
        at, column = np.nonzero(_between(gone[rows], count[rows]))
        pages, start = table[rows[at], column], column * t - before
        for member in shape.members:
            group = groups[member]
            if not group.grows:
                # Slots of a state, or of an encoder, are written once and read to the end.
                in_page = np.clip(group.slots(lengths)[at] - column * t, 0, t)
                token += _first_of(pages, in_page) * group.slot_bytes
                continue
            first = np.clip(group.first_read(queries)[at] - start, np.clip(-start, 0, t), t)
            own = np.clip(lengths[at] - start, 0, t)
            final = np.clip(np.maximum(finals, lengths)[at] - start, 0, t)
            order = np.lexsort((np.arange(len(pages)), -own, pages))
            furthest = order[np.unique(pages[order], return_index=True)[1]]
            # In the order of page numbers, as `furthest`.
            low = _least(pages, first)
            low = np.minimum(low, own[furthest])
            ahead = np.clip(-start[furthest], 0, t)  # an encoder's slots of the page
            token += int((own[furthest] - low).sum()) * group.slot_bytes
            expired += int((low - np.minimum(ahead, low)).sum()) * group.slot_bytes
            reserved += int((final - own)[furthest].sum()) * group.slot_bytes
    return Slots(np.array([token]), np.array([reserved]), np.array([expired]))


def _between(first: IntArray, stop: IntArray) -> np.ndarray:
    """Return [rows, columns]: whether a column is at least `first` and before `stop`."""
    column = np.arange(int(stop.max(initial=0)))
    return (column >= first[:, None]) & (column < stop[:, None])


def _least(pages: IntArray, values: IntArray) -> IntArray:
    """Return the least value of each page, in the order of page numbers."""
    order = np.argsort(pages, kind="stable")
    starts = np.unique(pages[order], return_index=True)[1]
    return np.minimum.reduceat(values[order], starts) if len(starts) else values


def _first_of(pages: IntArray, values: IntArray) -> int:
    """Sum one value of each page; all of its holders have the same."""
    return int(values[np.unique(pages, return_index=True)[1]].sum())
