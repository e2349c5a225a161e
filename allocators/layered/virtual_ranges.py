"""Virtual ranges of layer groups: what is needed of each, mapped, excess; and how it is shared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from allocators.base import EMPTY_GRANT, Demand, Grant, IntArray
from allocators.layered.grants import join, map_rows, without
from allocators.layered.tables import Entries
from allocators.layered.virtual_room import RangeRoom


class LayeredRanges(RangeRoom):
    """What ranges have mapped, and how it is unmapped and shared.

    Excess is never shared: a range gives up what others hold too as soon as it needs it no more.
    """

    # -- what is needed ----------------------------------------------------------------------
    def _more(self, rows: IntArray, n: int) -> IntArray:
        """Return the pages needed beyond those of now if these rows grow by `n` slots, [2].

        All copies included.
        """
        tables, lengths = self.tables, self.length[rows]
        low, high = self._interval(self._next_query(rows), lengths + n)
        groups = ((high - low) - (self.high[:, rows] - self.low[:, rows])).sum(axis=1)
        if tables.is_shared:
            table, _ = tables.to_copy(rows, lengths)
            groups += np.bincount(table, minlength=len(groups))
            going = self._shared_behind(rows)
            if going.any():  # what goes from one range only is not free for others
                of_table, _, _, held = tables.leading(rows, going)
                kept = ~tables.unheld(held)
                groups += np.bincount(of_table[kept], minlength=len(groups))
        return self.driver.weights @ groups

    def _serves_promises(self, rows: IntArray, n: int, more: IntArray) -> bool:
        """Say whether these rows may each grow by `n` slots, where that takes so many pages."""
        if (more <= 0).all():
            return True
        low, high = self.low, self.high
        if self.driver.two_sizes:  # what falls behind by then pins no chunk
            low = low.copy()
            then, _ = self._interval(self._next_query(rows), self.length[rows] + n)
            low[:, rows] = np.maximum(low[:, rows], then)
        return self._fits(self._needs() + more, low, high)

    def _need(self, rows: IntArray) -> None:
        """Note what these rows need now, of their lengths and first queries."""
        self.low[:, rows], self.high[:, rows] = self._interval(
            self.first_new[rows], self.length[rows]
        )

    def _interval(self, queries: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
        shapes = self.tables.shapes
        low = np.zeros((len(shapes), len(lengths)), dtype=np.int64)
        low[shapes.dropping] = shapes.behind(queries)
        return low, shapes.columns(lengths)

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
        if not lack.any():
            return []
        unmaps = self._reclaim(lack.sum(axis=1), self._needs())
        return [unmaps, self._mapped(self.tables.extend(rows, lack))]

    def _mapped(self, entries: Entries) -> Grant:
        """Return the grant of what was taken just now."""
        converted = self.driver.converted(self.geometry.ranks)
        return Grant(maps=map_rows(entries), converted=converted)

    def _spare(self, rows: IntArray, was: IntArray) -> Grant:
        """Give up small pages mapped ahead, behind column `was`, that pin chunks others need.

        [tables, rows].  What they were mapped for is mapped elsewhere when the step is planned.
        """
        if self.driver.chunks.parts == 1:
            return EMPTY_GRANT
        if self._fits(np.maximum(self._needs(), self._coming), self.low, self.high):
            return EMPTY_GRANT
        keep = np.where(self.driver.is_small[:, None], was, self.tables.count[:, rows])
        return join([self._cut(int(row), keep[:, i]) for i, row in enumerate(rows)])

    # -- giving back -------------------------------------------------------------------------
    def _reclaim(self, groups: IntArray, after: IntArray | None) -> Grant:
        """Unmap excess until these page-groups can be taken, [tables], or none is left.

        First what lies behind windows, then the whole excess of a range, last range first.
        `after` is `_can_take`'s.
        """
        steps: list[Grant] = []
        excess = self._all_excess()
        while not self._can_take(groups, after):
            unmaps = next(excess, None)
            if unmaps is None:
                break
            steps.append(unmaps)
        return join(steps)

    def _all_excess(self) -> Iterator[Grant]:
        """Unmap all excess, a range's at a time, in order."""
        behind, rest = self._excess()
        for row in np.flatnonzero(behind.any(axis=0))[::-1].tolist():
            yield self._drop_behind(row, behind[:, row])
        for row in np.flatnonzero(rest.any(axis=0))[::-1].tolist():
            yield self._cut(row, self.tables.count[:, row] - rest[:, row])

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
            steps.append(self._cut(child, np.zeros(len(tables.shapes), dtype=np.int64)))
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
        groups = np.bincount(table, minlength=len(tables.shapes))
        reclaimed = self._reclaim(groups, self._needs() + self.driver.weights @ groups)
        was = map_rows(self._all(np.unique(rows[at])))
        copies = tables.copy_on_write(table, rows[at], lengths[at])
        now = map_rows(self._all(np.unique(rows[at])))
        converted = self.driver.converted(self.geometry.ranks)
        swapped = Grant(
            unmaps=without(was, now), maps=without(now, was), copies=copies, converted=converted
        )
        return join([reclaimed, swapped])

    # -- host memory -------------------------------------------------------------------------
    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        if (self.high[:, rows] > self.tables.count[:, rows]).any():
            return None  # what this step has promised and not mapped is not saved
        lengths = self.length[rows]
        swaps = self.host.save(ticket, rows, lengths, self._interval(lengths, lengths))
        return None if swaps is None else replace(self.release(rows), swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        groups, weights = self.host.pages_of(ticket), self.driver.weights
        grow = len(rows) * self.tables.shapes.grows[:, 0] if self.active.any() else 0
        if not self._fits_now(weights @ (groups + grow)):
            return None
        nothing = np.zeros(len(groups), dtype=np.int64)
        steps = [self._cut(row, nothing) for row in rows.tolist()]
        self.tables.gone[:, rows] = self.tables.count[:, rows] = 0
        steps.append(self._reclaim(groups, self._needs() + weights @ groups))
        self.length[rows], swaps = self.host.restore(ticket, rows)
        self.first_new[rows] = self.length[rows]
        self.active[rows] = True
        self._need(rows)
        steps.append(self._mapped(self._all(rows)))
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
