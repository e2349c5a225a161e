"""What sequences of the virtual allocator hold: opened, forked, copied, moved to the host, seen.

The original shares nothing.  With `sharing=alias` a fork maps the parent's page-groups into the
child's range and copies only the one being written, and with a prefix index a prompt maps those
that hold its beginning (docs/prefix.md).  What is shared has to be mapped first, so it is mapped at
once.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.base import Demand, Geometry, Grant, IntArray, Strided, Usage
from allocators.grants import join
from allocators.host import HostPages
from allocators.page_table import NO_PAGES, PageTable, ceil_div
from allocators.prefix.caching import PrefixCaching
from allocators.virtual.prefix import attach
from allocators.virtual.shape import RangeShape
from allocators.virtual.usage import account


class RangeHolder(PrefixCaching):
    """Sequences and their ranges, whatever the rules are by which they are let in and grow."""

    def __init__(
        self, geometry: Geometry, shape: RangeShape, sharing: str, prefix_index: str
    ) -> None:
        super().__init__(replace(geometry, page_tokens=shape.page_tokens))
        self.shape, self.page_bytes = shape, shape.page_bytes
        self.pages_per_group = shape.pages_per_group
        self.range_pages, self.range_tokens = shape.range_pages, shape.range_tokens
        self.alias = sharing == "alias"
        self.pages = PageTable(
            geometry.max_seqs, shape.range_pages, shape.num_page_groups, shape.page_tokens
        )
        self.index, self.ranges = attach(self.pages, prefix_index, sharing)
        self.has_prefix_index = prefix_index != "none"
        self.host = HostPages(geometry.host_tokens // shape.page_tokens)
        self.range_of: IntArray = np.full(geometry.max_seqs, -1, dtype=np.int64)
        self._admission: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)  # row -> its number
        self._admissions = 0

    @property
    def available(self) -> int:
        """Page-groups that may be promised (num_free_kvblocks): free ones, and all excess."""
        return self.ranges.available

    def _left_to_grow(self) -> int:
        """Return the page-groups that growth beside others may have in the step being planned."""
        return self.available

    def _admitted(self, rows: IntArray) -> None:
        """Note that these rows were let in together."""
        self._admissions += 1
        self._admission[rows] = self._admissions

    # -- opening -----------------------------------------------------------------------------
    def _open(self, rows: IntArray, tokens: int, found: IntArray = NO_PAGES) -> Grant:
        """Give each sequence a range with room for `tokens`, which begins with the pages `found`.

        The caller has counted the pages.
        """
        steps = []
        for row in rows.tolist():
            self.range_of[row], opened = self.ranges.open(tokens, found)
            self.length[row], self.active[row] = tokens, True
            steps.append(opened)
        if self.has_prefix_index:  # it names page-groups
            steps += self.ranges.settle(self.range_of[rows])
        return join(steps)

    def _diverge(self, rows: IntArray, n: int) -> Grant:
        """Give each sequence of a new group `n` slots of its own behind the prompt.

        The others take a copy of the partly filled page-group of `rows[0]`, which they do not map
        even for a moment: one grant cannot map a page-group and then another in its place.
        """
        lengths, ranges = self.length[rows], self.range_of[rows]
        self.length[rows] = self.ranges.length[ranges] = lengths + n
        steps = self.ranges.settle(ranges)
        column, tail = divmod(int(lengths[0]), self.geometry.page_tokens)
        if self.alias and tail:
            first = self.pages.table[ranges, column] * self.geometry.page_tokens
            copies = np.column_stack(np.broadcast_arrays(first[0], first[1:], tail))
            steps.append(Grant(copies=copies))
        return join(steps)

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        need = -(-int(self.length[parent]) // self.geometry.page_tokens)
        if not self.alias and need * len(children) > self.available:
            return None
        self._admission[children] = self._admission[parent]
        grant = self._continue(parent, children)
        self.index.diverged(self.range_of[np.append(children, parent)])
        return grant

    def _continue(self, parent: int, children: IntArray, diverging: bool = False) -> Grant:
        """Let children go on from a parent, whose page-groups have to be mapped for that."""
        length, t = int(self.length[parent]), self.geometry.page_tokens
        source = int(self.range_of[parent])
        steps = self.ranges.settle(np.array([source]))
        if not self.alias:
            steps.append(self._open(children, length))
            steps += self.ranges.settle(self.range_of[children])
            steps.append(Grant(copies=self._copies(source, self.range_of[children], length)))
            return join(steps)
        for child in children.tolist():
            self.range_of[child], unmaps = self.ranges.acquire_empty(length)
            steps.append(Grant(unmaps=unmaps))
        ranges = self.range_of[children]
        need = length // t if diverging else -(-length // t)
        self.pages.share(source, ranges, need)
        self.length[children] = length
        self.active[children] = True
        column = np.tile(np.arange(need), len(ranges))
        vrange = np.repeat(ranges, need)
        maps = np.column_stack([vrange, column, self.pages.table[vrange, column]])
        steps.append(Grant(maps=maps))
        return join(steps)

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        ranges, sources = self.range_of[rows], self.range_of[parents]
        steps = self.ranges.settle(ranges)
        if self.alias:
            used = ceil_div(self.length[rows], self.geometry.page_tokens)
            gone, come = self.pages.reassign(ranges, sources, used)
            self.index.diverged(ranges)
            return join([*steps, Grant(unmaps=gone, maps=come)]) if len(come) else join(steps)
        moved = np.flatnonzero(rows != parents)
        copies = [
            self._copies(int(sources[i]), ranges[i : i + 1], int(self.length[rows[i]]))
            for i in moved
        ]
        return join([*steps, Grant(copies=np.concatenate(copies))]) if copies else join(steps)

    def _copies(self, source: int, targets: IntArray, length: int) -> IntArray:
        """Return the copies of what one range holds into others, page-group by page-group."""
        shape, t = self.shape, self.geometry.page_tokens
        pages = min(-(-length // t), shape.range_pages)
        src = np.tile(self.pages.table[source, :pages], len(targets)) * t
        dst = self.pages.table[targets, :pages].ravel() * t
        copies = np.column_stack([src, dst, np.full(len(src), t)])
        tail = length - shape.range_pages * t
        if tail <= 0:
            return copies
        ends = shape.tail_slots(np.append(targets, source))
        return np.vstack([copies, *([ends[-1], end, tail] for end in ends[:-1])])

    def _copy_on_write(self, ranges: IntArray, lengths: IntArray) -> Grant:
        reclaimed = self.ranges.reclaim(len(ranges))
        copies, old = self.pages.copy_on_write(ranges, lengths)
        column = lengths // self.geometry.page_tokens
        unmaps = np.column_stack([ranges, column, old])
        maps = np.column_stack([ranges, column, self.pages.table[ranges, column]])
        return Grant(unmaps=np.concatenate([reclaimed, unmaps]), maps=maps, copies=copies)

    # -- host memory -------------------------------------------------------------------------
    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        if (self.length[rows] > self.range_pages * self.geometry.page_tokens).any():
            return None  # what lies beside the pages' tokens is not saved
        if self.ranges.lacking()[self.range_of[rows]].any():
            return None  # nor is what this step has promised and not mapped
        swaps = self.host.save(ticket, self.pages, self.range_of[rows], self.length[rows])
        return None if swaps is None else replace(self.release(rows), swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        needed = self.host.pages_of(ticket)
        if needed > self.available:
            return None
        if self.active.any() and needed + len(rows) > self._left_to_grow():
            return None
        self._admitted(rows)
        unmaps = []
        for row, length in zip(rows.tolist(), self.host.lengths_of(ticket).tolist(), strict=True):
            self.range_of[row], unmapped = self.ranges.acquire_empty(length)
            unmaps.append(unmapped)
        unmaps.append(self.ranges.reclaim(needed))
        ranges = self.range_of[rows]
        self.length[rows], swaps = self.host.restore(ticket, self.pages, ranges)
        self.active[rows] = True
        at, column = np.nonzero(self.pages.table[ranges] >= 0)
        maps = np.column_stack([ranges[at], column, self.pages.table[ranges[at], column]])
        return Grant(unmaps=np.concatenate(unmaps), maps=maps, swaps_in=swaps)

    # -- views -------------------------------------------------------------------------------
    def layout(self, rows: IntArray) -> Strided:
        return Strided(self.range_of[rows] * self.range_tokens, self.length[rows])

    def addresses(self, row: int) -> IntArray:
        vrange, length = int(self.range_of[row]), int(self.length[row])
        whole = self.range_pages * self.geometry.page_tokens
        slots = self.pages.addresses(vrange, min(length, whole))
        if length <= whole:
            return slots
        first = int(self.shape.tail_slots(np.array([vrange]))[0])
        return np.concatenate([slots, first + np.arange(length - whole)])

    def extents(self, row: int) -> IntArray:
        return self.pages.extents(int(self.range_of[row]))

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        return account(self, rows, finals, steps)
