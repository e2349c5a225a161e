"""Where the bytes of a pool are when layer groups hold different slots of the same sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, IntArray, Usage
from allocators.layered.tables import LayerTables
from allocators.layers import WINDOW_KINDS, LayerGroup
from allocators.page_table import ceil_div

if TYPE_CHECKING:
    from allocators.layered.paged import LayeredPaged


class Rows(NamedTuple):
    """Whose slots are counted, over steps in which they took pages and gave none back.

    `lengths` [steps, rows] are those after each step, `queries` the first position that it
    computed, and `finals` [rows] the lengths at which they will end.  `elastic` rows took pages as
    they grew; others held in all the steps what they hold now.
    """

    tables: LayerTables
    groups: tuple[LayerGroup, ...]
    rows: IntArray
    lengths: IntArray
    queries: IntArray
    finals: IntArray
    elastic: bool = True

    @classmethod
    def of(cls, policy: LayeredPaged, rows: IntArray, finals: IntArray, steps: int) -> Rows:
        """Return the rows of a policy over the last `steps` steps, the present one last."""
        lengths = policy.length[rows] - np.arange(steps - 1, -1, -1)[:, None]
        queries = policy.first_new[rows][None, :] if steps == 1 else lengths - 1
        groups = policy.geometry.layer_groups
        return cls(policy.tables, groups, rows, lengths, queries, finals)

    def step(self, index: int) -> Rows:
        """Return the same of one step."""
        if len(self.lengths) == 1:
            return self
        at = slice(index, index + 1)
        return self._replace(lengths=self.lengths[at], queries=self.queries[at])


class Slots(NamedTuple):
    """Bytes of slots, [steps]: read by this step or a later one, written later, written in vain."""

    token: IntArray
    reserved: IntArray
    expired: IntArray


def usage(policy: LayeredPaged, rows: IntArray, finals: IntArray, steps: int) -> Usage:
    """Return the `usage` of the protocol, of a policy whose rows take pages as they grow."""
    tables, geometry = policy.tables, policy.geometry
    pools, of = tables.pools, Rows.of(policy, rows, finals, steps)
    to_come = _to_come(of)
    # Sequences that a static batch still holds after their end hold pages as well.
    all_live = len(rows) == np.count_nonzero(policy.active)
    slots = _slots(of, to_come, all_live)
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


def _to_come(of: Rows) -> IntArray:
    """Return the pages of each table that rows took after each of these steps, [steps, tables].

    Less those that they have given back since.
    """
    shapes = of.tables.shapes
    if len(of.lengths) == 1:
        return np.zeros((1, len(shapes)), dtype=np.int64)
    to_come = np.zeros((len(of.lengths), len(shapes)), dtype=np.int64)
    for index, at in shapes.alike:
        shape = shapes.tables[index]
        if shape.grows:
            count = ceil_div(of.lengths + shape.before, shape.page_tokens).sum(axis=1)
            held = of.tables.count[index, of.rows].sum() - count
            if shape.drops:
                gone = of.tables.gone[index, of.rows].sum()
                held = held - (gone - _gone(of, index).sum(axis=-1))
            to_come[:, at] = held[:, None]
    return to_come


def _gone(of: Rows, index: int) -> IntArray:
    """Return how many columns of a table rows had given back by then, [rows] or [steps, rows].

    All that lay behind what a step read was given back before it.
    """
    gone, table = of.tables.gone[index, of.rows], of.tables.shapes.tables[index]
    if len(of.lengths) == 1 or not table.drops or (gone <= table.behind(of.queries[0])).all():
        return gone
    return np.minimum(gone, table.behind(of.queries))


def _slots(of: Rows, to_come: IntArray, all_live: bool) -> Slots:
    """Count the slots of rows; `all_live`: nobody but these rows holds a page."""
    if not of.tables.is_shared:
        return alone(of)
    if not all_live or len(of.groups) != len(of.tables.shapes):
        return together(of)
    steps = [of.step(i) for i in range(len(of.lengths))]
    held = of.tables.held - to_come
    return _join(
        [quick(step, now) or together(step) for step, now in zip(steps, held, strict=True)]
    )


def _join(steps: list[Slots]) -> Slots:
    return steps[0] if len(steps) == 1 else Slots(*map(np.concatenate, zip(*steps, strict=True)))


def quick(of: Rows, held: IntArray) -> Slots | None:
    """Count the slots of all rows in one step from the pages that each table `held`, [tables].

    Each table is of one layer group.  None where that does not do: where a last page is shared, or
    a page is wholly behind.
    """
    tables, rows, lengths, finals = of.tables, of.rows, of.lengths[0], of.finals
    shapes, t = tables.shapes, tables.shapes.page_tokens
    count = shapes.columns(lengths)
    room = count * t - shapes.slots(lengths)
    last = tables.at(rows, np.maximum(count - 1, 0))
    if ((tables.ref[last] > 1) & (room > 0)).any():
        return None
    at = shapes.dropping
    gone = tables.gone[at[:, None], rows]
    dead = shapes.first_read(of.queries[0]) - gone * t[at]
    if (dead >= t[at]).any():
        return None
    later = np.where(shapes.grows, np.minimum(room, np.maximum(finals - lengths, 0)), 0)
    expired = np.zeros(len(t), dtype=np.int64)
    if len(at):
        expired[at] = dead.sum(axis=1)
        if dead.any():
            expired -= _again(tables, rows, gone, dead)
    written = held * t[:, 0] - room.sum(axis=1)
    slot_bytes = np.array([group.slot_bytes for group in of.groups])
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


def alone(of: Rows) -> Slots:
    """Count the slots of rows that share no page."""
    tables, lengths = of.tables, of.lengths
    token = np.zeros(len(lengths), dtype=np.int64)
    reserved, expired = np.zeros_like(token), np.zeros_like(token)
    filled, left = lengths.sum(axis=1), np.maximum(of.finals - lengths, 0)
    rooms: dict[tuple[int, int, int], IntArray] = {}
    for index, group, slot_bytes in tables.shapes.counted:
        if not group.grows:
            token += group.slots(lengths).sum(axis=1) * slot_bytes
            continue
        shape = tables.shapes.tables[index]
        t, before = shape.page_tokens, shape.before
        room = t, before, -1 if of.elastic else index
        if room not in rooms:
            slots = lengths + before
            count = ceil_div(slots, t) if of.elastic else tables.count[index, of.rows]
            rooms[room] = np.minimum(left, count * t - slots).sum(axis=1)
        reserved += rooms[room] * slot_bytes
        if group.kind not in WINDOW_KINDS:
            token += filled * slot_bytes
            continue
        behind = group.first_read(of.queries).sum(axis=1)
        token += (filled - behind) * slot_bytes
        expired += (behind - _gone(of, index).sum(axis=-1) * t) * slot_bytes
    return Slots(token, reserved, expired)


def together(of: Rows) -> Slots:
    """Count the slots of rows that may share pages; a shared slot counts once.

    It is read if any of its holders reads it.  What is left of a page that several fill is the
    one's that fills it furthest.
    """
    if len(of.lengths) > 1:
        return _join([together(of.step(i)) for i in range(len(of.lengths))])
    token, reserved, expired = (int(each[0]) for each in alone(of))
    tables, lengths, finals = of.tables, of.lengths[0], of.finals
    counts = tables.shapes.columns(lengths)
    for index, shape in enumerate(tables.shapes.tables):
        t = shape.page_tokens
        at, column, pages = _shared(tables, index, of.rows, counts[index])
        if not len(pages):
            continue
        start = column * t - shape.before
        for group in (of.groups[member] for member in shape.members):
            if not group.grows:
                # Slots of a state, or of an encoder, are written once and read to the end.
                in_page = np.clip(group.slots(lengths)[at] - column * t, 0, t)
                token += (_first_of(pages, in_page) - int(in_page.sum())) * group.slot_bytes
                continue
            ahead = np.clip(-start, 0, t)  # an encoder's slots of the page
            first = np.clip(group.first_read(of.queries[0])[at] - start, ahead, t)
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
