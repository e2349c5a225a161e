"""Where the bytes of a pool are when layer groups hold different slots of the same sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, Geometry, IntArray, Usage
from allocators.layered.tables import LayerTables
from allocators.layers import LayerGroup


class Slots(NamedTuple):
    """Bytes of slots, [steps]: read by this step or a later one, written later, written in vain."""

    token: IntArray
    reserved: IntArray
    expired: IntArray


def usage(
    tables: LayerTables,
    geometry: Geometry,
    rows: IntArray,
    lengths: IntArray,
    queries: IntArray,
    finals: IntArray,
    all_live: bool,
) -> Usage:
    """Account for the pools over steps in which rows took pages and gave none back.

    [steps, rows]: `lengths` are those after each step, `queries` the first position that it
    computed.  `all_live`: nobody but these rows holds a page.
    """
    pools, groups = tables.pools, geometry.layer_groups
    to_come = _to_come(tables, rows, lengths)
    slots = _slots(tables, groups, rows, lengths, queries, finals, to_come, all_live)
    taken = to_come @ pools.members
    held = pools.sizes - (pools.free() + taken)
    in_use = held @ pools.page_bytes
    cached = pools.cached_before(taken) @ pools.page_bytes
    logical = tables.entries - to_come.sum(axis=1)
    return Usage(
        token=slots.token,
        reserved=slots.reserved,
        internal=in_use - slots.token - slots.reserved - slots.expired,
        round_up=np.zeros_like(in_use),
        cached=cached,
        free=geometry.capacity_bytes - in_use - cached,
        pages=held.sum(axis=1),
        logical_pages=logical,
        metadata_bytes=logical * BLOCK_TABLE_ENTRY_BYTES,
        expired=slots.expired,
    )


def _to_come(tables: LayerTables, rows: IntArray, lengths: IntArray) -> IntArray:
    """Return the pages of each table that rows took after each of these steps, [steps, tables]."""
    if len(lengths) == 1:
        return np.zeros((1, len(tables.shapes)), dtype=np.int64)
    count, shapes = tables.count[:, rows], tables.shapes
    return np.array([(count - shapes.columns(past)).sum(axis=1) for past in lengths])


def _slots(
    tables: LayerTables,
    groups: tuple[LayerGroup, ...],
    rows: IntArray,
    lengths: IntArray,
    queries: IntArray,
    finals: IntArray,
    to_come: IntArray,
    all_live: bool,
) -> Slots:
    one_each = len(groups) == len(tables.shapes)  # a table for each layer group
    if not tables.is_shared and not (all_live and one_each and len(lengths) == 1):
        return alone(tables, groups, rows, lengths, queries, finals)
    found = []
    for past, query, taken in zip(lengths, queries, to_come, strict=True):
        slots = None
        if all_live and one_each:
            slots = quick(tables, groups, rows, past, query, finals, tables.held - taken)
        found.append(slots or together(tables, groups, rows, past, query, finals))
    return found[0] if len(found) == 1 else Slots(*map(np.concatenate, zip(*found, strict=True)))


def quick(
    tables: LayerTables,
    groups: tuple[LayerGroup, ...],
    rows: IntArray,
    lengths: IntArray,
    queries: IntArray,
    finals: IntArray,
    held: IntArray,
) -> Slots | None:
    """Count the slots of all rows from the pages that each table `held`, [tables].

    Each table is of one layer group.  None where that does not do: where a last page is shared, or
    a page is wholly behind.
    """
    shapes, t = tables.shapes, tables.shapes.page_tokens
    count = shapes.columns(lengths)
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
    written = held * t[:, 0] - room.sum(axis=1)
    slot_bytes = np.array([group.slot_bytes for group in groups])
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
    each = alone(tables, groups, rows, lengths[None, :], queries[None, :], finals)
    token, reserved, expired = (int(of[0]) for of in each)
    for index, shape in enumerate(tables.shapes.tables):
        t, count = shape.page_tokens, tables.shapes.columns(lengths)[index]
        at, column, pages = _shared(tables, index, rows, count)
        if not len(pages):
            continue
        start = column * t - shape.before
        for member in shape.members:
            group = groups[member]
            if not group.grows:
                # Slots of a state, or of an encoder, are written once and read to the end.
                in_page = np.clip(group.slots(lengths)[at] - column * t, 0, t)
                token += (_first_of(pages, in_page) - int(in_page.sum())) * group.slot_bytes
                continue
            ahead = np.clip(-start, 0, t)  # an encoder's slots of the page
            first = np.clip(group.first_read(queries)[at] - start, ahead, t)
            own = np.clip(lengths[at] - start, ahead, t)
            later = np.clip(np.maximum(finals, lengths)[at] - start, ahead, t) - own
            order = np.lexsort((np.arange(len(pages)), -own, pages))
            furthest = order[np.unique(pages[order], return_index=True)[1]]
            live = _covered(pages, first, own, t) - int((own - first).sum())
            written = int((own - ahead)[furthest].sum()) - int((own - ahead).sum())
            token += live * group.slot_bytes
            expired += (written - live) * group.slot_bytes
            reserved += (int(later[furthest].sum()) - int(later.sum())) * group.slot_bytes
    return Slots(np.array([token]), np.array([reserved]), np.array([expired]))


def _shared(
    tables: LayerTables, index: int, rows: IntArray, count: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the entries of rows, of so many columns, whose pages others have too.

    An index into `rows`, the column and the page of each.
    """
    columns = np.arange(int(count.max(initial=0)))
    held = (columns >= tables.gone[index, rows][:, None]) & (columns < count[:, None])
    table = tables.table[index][rows, : len(columns)]
    at, column = np.nonzero(held & (tables.ref[table] > 1))
    return at, column, table[at, column]


def _covered(pages: IntArray, first: IntArray, stop: IntArray, page_tokens: int) -> int:
    """Count the slots of pages from `first` to `stop` of any of their entries."""
    each, of = np.unique(pages, return_inverse=True)
    some = first < stop
    change = np.zeros((len(each), page_tokens + 1), dtype=np.int64)
    np.add.at(change, (of[some], first[some]), 1)
    np.subtract.at(change, (of[some], stop[some]), 1)
    return int(np.count_nonzero(np.cumsum(change, axis=1)[:, :page_tokens]))


def _least(pages: IntArray, values: IntArray) -> IntArray:
    """Return the least value of each page, in the order of page numbers."""
    order = np.argsort(pages, kind="stable")
    starts = np.unique(pages[order], return_index=True)[1]
    return np.minimum.reduceat(values[order], starts) if len(starts) else values


def _first_of(pages: IntArray, values: IntArray) -> int:
    """Sum one value of each page; all of its holders have the same."""
    return int(values[np.unique(pages, return_index=True)[1]].sum())
