"""Virtual ranges of layer groups: what is needed of each, mapped, excess; and how it is shared."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from allocators.base import EMPTY_GRANT, Demand, Geometry, Grant, IntArray
from allocators.layered.grants import join, map_rows, without
from allocators.layered.grouping import Spread
from allocators.layered.paged import LayeredPaged
from allocators.layered.tables import Entries
from allocators.layered.virtual_pages import DriverPages, table_shapes
from allocators.virtual.shape import PAGE_BYTES


class LayeredRanges(LayeredPaged):
    """A table for each layer group, whose rows are ranges: row r's sequence has range r.

    `low` and `high` [tables, ranges] are the page-groups that a live range needs: from, up to.
    Excess is never shared: a range gives up what others hold too as soon as it needs it no more.
    """

    block_tables: ClassVar[bool] = False

    def __init__(self, geometry: Geometry, page_size: str, layout: str) -> None:
        shapes, calls = table_shapes(geometry, page_size, layout)
        page_bytes = PAGE_BYTES[page_size]
        pages = DriverPages(geometry.pool_bytes, page_bytes * geometry.ranks, calls)
        super().__init__(geometry, Spread(shapes, geometry.layer_groups), pages)
        self.page_bytes, self.pages_per_group = page_bytes, int(calls[0])
        self.driver: DriverPages = pages
        self.low, self.high = np.zeros_like(self.tables.count), np.zeros_like(self.tables.count)
        self._weights = calls[:, None]
        self._drops = np.isin(np.arange(len(shapes)), self.tables.shapes.dropping)
        self._widths = self.tables.shapes.width[:, None]

    # -- how much there is -------------------------------------------------------------------
    @property
    def available(self) -> int:
        """Driver pages that may be promised: free ones and all excess, but what is promised."""
        mapped = self.tables.count - self.tables.gone
        return self.driver.driver_free + int(
            (self._weights * (mapped - (self.high - self.low))).sum()
        )

    @property
    def cached_pages(self) -> int:
        """Driver pages that only idle ranges have mapped."""
        mapped = self.tables.count - self.tables.gone
        return int((self._weights * mapped)[:, ~self.active].sum())

    def _need(self, rows: IntArray) -> None:
        """Note what these rows need now, of their lengths and first queries."""
        self.low[:, rows], self.high[:, rows] = self._interval(
            self.first_new[rows], self.length[rows]
        )

    def _interval(self, queries: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
        low = np.zeros((len(self._drops), len(lengths)), dtype=np.int64)
        low[self._drops] = self.tables.shapes.behind(queries)
        return low, self.tables.shapes.columns(lengths)

    def _held(self) -> IntArray:
        """Return how many page-groups are needed that are mapped, [tables, ranges]."""
        tables = self.tables
        first = np.maximum(self.low, tables.gone)
        return np.maximum(np.minimum(self.high, tables.count) - first, 0)

    def _excess(self) -> IntArray:
        """Return the page-groups behind what live ranges need, and all others not needed.

        [2, tables, ranges]: the former lead, the latter end what is mapped.
        """
        tables = self.tables
        behind = np.clip(self.low - tables.gone, 0, tables.count - tables.gone)
        return np.stack([behind, np.maximum(tables.count - tables.gone - behind - self._held(), 0)])

    # -- mapping -----------------------------------------------------------------------------
    def _settle(self, rows: IntArray) -> list[Grant]:
        """Map what is promised to these ranges; excess makes room."""
        lack = np.maximum(self.high[:, rows] - self.tables.count[:, rows], 0)
        return self._map(rows, lack) if lack.any() else []

    def _map(self, rows: IntArray, lack: IntArray) -> list[Grant]:
        unmaps = self._reclaim(int((self._weights * lack).sum()))
        return [unmaps, Grant(maps=map_rows(self.tables.extend(rows, lack)))]

    # -- giving back -------------------------------------------------------------------------
    def _reclaim(self, wanted: int) -> Grant:
        """Unmap excess until `wanted` driver pages are free or none is left.

        First what lies behind windows, then the whole excess of a range, last range first.
        """
        if wanted <= self.driver.driver_free:
            return EMPTY_GRANT
        steps = []
        behind, rest = self._excess()
        for row in np.flatnonzero(behind.any(axis=0))[::-1].tolist():
            steps.append(self._drop_behind(row, behind[:, row]))
            if wanted <= self.driver.driver_free:
                return join(steps)
        for row in np.flatnonzero(rest.any(axis=0))[::-1].tolist():
            steps.append(self._cut(row, self.tables.count[:, row] - rest[:, row]))
            if wanted <= self.driver.driver_free:
                break
        return join(steps)

    def _drop_behind(self, row: int, columns: IntArray) -> Grant:
        rows = np.array([row])
        unmaps = map_rows(self.tables.leading(rows, columns[:, None]))
        self.tables.forget(rows, columns[:, None])
        return Grant(unmaps=unmaps)

    def _cut(self, row: int, keep: IntArray) -> Grant:
        """Unmap what a range has behind its first `keep` page-groups, [tables]."""
        entries = self.tables.cut(row, keep)
        return Grant(unmaps=map_rows(entries)) if len(entries[0]) else EMPTY_GRANT

    def _exclusive(self, index: int, row: int, start: int) -> int:
        """Return the column of the first shared page-group from `start` on, or the end."""
        count = int(self.tables.count[index, row])
        start = min(max(start, int(self.tables.gone[index, row])), count)
        shared = self.tables.ref[self.tables.table[index][row, start:count]] > 1
        return start + int(shared.argmax()) if shared.any() else count

    def _shared_behind(self, rows: IntArray) -> IntArray:
        """Return how many leading page-groups have to go now: behind, and up to a shared one.

        [tables, rows].  One that others share too would not be free if it were unmapped later.
        """
        behind = self.tables.behind(rows, self._next_query(rows))
        for index in np.flatnonzero(behind.any(axis=1)).tolist():
            table, gone = self.tables.table[index], self.tables.gone[index, rows]
            column = gone[:, None] + np.arange(int(behind[index].max()))
            inside = column < (gone + behind[index])[:, None]
            pages = table[rows[:, None], np.minimum(column, table.shape[1] - 1)]
            shared = inside & (self.tables.ref[pages] > 1)
            last = shared.shape[1] - np.argmax(shared[:, ::-1], axis=1)
            behind[index] = np.where(shared.any(axis=1), last, 0)
        return behind

    def _forget_shared(self, rows: IntArray) -> Grant:
        going = self._shared_behind(rows)
        if not going.any():
            return EMPTY_GRANT
        unmaps = map_rows(self.tables.leading(rows, going))
        self.tables.forget(rows, going)
        return Grant(unmaps=unmaps)

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        return self._continue(parent, children, int(self.length[parent]))

    def _continue(self, parent: int, children: IntArray, length: int) -> Grant:
        """Let children go on from a parent, whose page-groups have to be mapped for that."""
        one, tables = np.array([parent]), self.tables
        steps = self._settle(one)
        for child in children.tolist():
            steps.append(self._cut(child, np.zeros(len(self._drops), dtype=np.int64)))
        tables.gone[:, children] = tables.count[:, children] = 0
        tables.share(parent, children)
        self.length[children] = self.first_new[children] = length
        self.active[children] = True
        self._need(children)
        self._trim(children)
        steps.append(Grant(maps=map_rows(self._all(children))))
        return join(steps)

    def _trim(self, rows: IntArray) -> None:
        """Take from rows what they were given beyond their need, before anything is mapped."""
        tables = self.tables
        for row in rows.tolist():
            tables.cut(row, self.high[:, row])
            behind = np.maximum(self.low[:, row] - tables.gone[:, row], 0)
            tables.forget(np.array([row]), behind[:, None])

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        moved = rows != parents
        steps = self._settle(np.unique(np.concatenate([rows, parents])))
        rows, parents = rows[moved], parents[moved]
        if not len(rows):
            return join(steps)
        was = map_rows(self._all(rows))
        self.tables.reassign(rows, parents)
        self.first_new[rows] = self.first_new[parents]
        self._need(rows)
        self._trim(rows)
        now = map_rows(self._all(rows))
        gone, come = without(was, now), without(now, was)
        return join([*steps, Grant(unmaps=gone, maps=come)])

    def _copy_on_write(self, rows: IntArray, lengths: IntArray) -> Grant:
        tables = self.tables
        table, at = tables.to_copy(rows, lengths)
        if not len(table):
            return EMPTY_GRANT
        reclaimed = self._reclaim(int(self.driver.of_group[table].sum()))
        was = map_rows(self._all(np.unique(rows[at])))
        copies = tables.copy_on_write(table, rows[at], lengths[at])
        now = map_rows(self._all(np.unique(rows[at])))
        swapped = Grant(unmaps=without(was, now), maps=without(now, was), copies=copies)
        return join([reclaimed, swapped])

    # -- host memory -------------------------------------------------------------------------
    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        if (self.high[:, rows] > self.tables.count[:, rows]).any():
            return None  # what this step has promised and not mapped is not saved
        lengths = self.length[rows]
        swaps = self.host.save(ticket, rows, lengths, self._interval(lengths, lengths))
        return None if swaps is None else replace(self.release(rows), swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        needed = int(self.host.pages_of(ticket) @ self.driver.of_group)
        if needed > self.available:
            return None
        if self.active.any():
            grows = self.tables.shapes.grows[:, 0]
            if needed + len(rows) * int(self.driver.of_group[grows].sum()) > self.available:
                return None
        steps = [
            self._cut(row, np.zeros(len(self._drops), dtype=np.int64)) for row in rows.tolist()
        ]
        self.tables.gone[:, rows] = self.tables.count[:, rows] = 0
        steps.append(self._reclaim(needed))
        self.length[rows], swaps = self.host.restore(ticket, rows)
        self.first_new[rows] = self.length[rows]
        self.active[rows] = True
        self._need(rows)
        steps.append(Grant(maps=map_rows(self._all(rows))))
        return replace(join(steps), swaps_in=swaps)

    def _all(self, rows: IntArray) -> Entries:
        """Return all that these ranges have mapped."""
        found = []
        for index, table in enumerate(self.tables.table):
            at, column = np.nonzero(table[rows] >= 0)
            pages = table[rows[at], column]
            found.append(np.array([np.full_like(at, index), rows[at], column, pages]))
        table, row, column, pages = np.concatenate(found, axis=1)
        return table, row, column, pages
