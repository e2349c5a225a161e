"""Paged allocation for layers that keep different KV: a page table for each layer group.

Follows vLLM's hybrid KV cache manager (vLLM 0.33.0, design document "Hybrid KV Cache Manager"):

- before a sequence grows, the pages that lie wholly behind what its next token reads are given
  back, in every layer group that has a window;
- a sequence is admitted if all of it would fit at present, of a layer group with a window no more
  than the window and the token budget of a step;
- sequences of a batch are served in order, each as if it were alone.

`groups` says how layer groups are spread over tables and pools: `allocators.layered.grouping`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from allocators.base import (
    BLOCK_TABLE_ENTRY_BYTES,
    EMPTY_GRANT,
    BlockTable,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    Unsupported,
    Usage,
)
from allocators.growth import bisect_headroom
from allocators.knobs import check_blocks
from allocators.layered import account
from allocators.layered.base import LayeredAllocator
from allocators.layered.build import caching_queue, check_knobs, make_pools, spread_over
from allocators.layered.grouping import Spread
from allocators.layered.pools import CachedPools, Pools
from allocators.layered.prefix import HashLayerIndex, Hit, LayerIndex, NoIndex
from allocators.layered.shapes import TableShapes
from allocators.layered.tables import LayerTables
from allocators.page_table import NO_PAGES
from allocators.prefix.index import PrefixStats


class LayeredPaged(LayeredAllocator):
    """Pages of `spread`, taken from `pools`; admission leaves `watermark` of each pool free."""

    block_tables: ClassVar[bool] = True

    def __init__(
        self, geometry: Geometry, spread: Spread, pools: Pools, *, watermark: float = 0.0
    ) -> None:
        geometry = replace(geometry, layer_groups=spread.layer_groups)
        first = spread.tables[0]
        super().__init__(replace(geometry, page_tokens=first.page_tokens))
        shapes = TableShapes(spread.tables, self.geometry)
        self.tables = LayerTables(shapes, geometry.max_seqs, pools)
        self.pools = pools
        self._watermark = (watermark * pools.sizes).astype(np.int64)
        self._table_of = {
            member: index for index, table in enumerate(spread.tables) for member in table.members
        }
        # Of each table, where each is of one layer group.
        self._slot_bytes: IntArray | None = None
        if len(self._table_of) == len(spread.tables):
            self._slot_bytes = np.array([g.slot_bytes for g in spread.layer_groups])
        self.has_prefix_index = isinstance(pools, CachedPools)
        index = HashLayerIndex if self.has_prefix_index else NoIndex
        self.index: LayerIndex = index(self.tables)
        # Rows that were refused growth last: what lies behind them goes before any other's memory.
        self._refused: IntArray = NO_PAGES

    @property
    def prefix_stats(self) -> PrefixStats:
        """Lookups, hits and evictions so far; all zero without an index."""
        return self.index.stats()

    @property
    def evictions(self) -> int:
        """Pages whose cached prefix was given up for another use, so far."""
        return self.index.stats().evictions

    def lookup(self, prompt: Prompt) -> int:
        return self.index.find(prompt).tokens

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        groups: str = "hybrid",
        window_share: float | None = None,
        block_size: int = 16,
        watermark: float = 0.0,
        prefix_index: str = "none",
        eviction: str = "lru",
        free_order: str = "unkeyed_first",
        offload: bool = False,
    ) -> LayeredPaged:
        """Return the policy of these knobs; raises as `Allocator.of` does."""
        check_knobs(groups, window_share)
        check_blocks(block_size, watermark, offload)
        spread, pages = spread_over(geometry, groups, block_size, window_share)
        queue = caching_queue(spread, prefix_index, eviction, free_order, offload)
        return cls(geometry, spread, make_pools(spread, pages, queue), watermark=watermark)

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        tables, sequences, private = self.tables, len(rows), demand.private_tokens
        whole = self._asked(prompt, demand, sequences)
        if not self._fits_empty(whole):
            raise NeverFits(self._never(whole))
        hit = self.index.find(prompt)
        taken = self._taken(prompt.tokens, private, sequences)
        if not self._admits(hit, whole, taken):
            return None
        first = rows[:1]
        self.index.hold(int(rows[0]), hit)
        tables.extend(first, tables.lacking(first, np.array([prompt.tokens])))
        self.index.admitted(int(rows[0]), prompt, hit, alone=sequences == 1)
        if sequences > 1:
            tables.share(int(rows[0]), rows[1:])
        self.length[rows], self.active[rows] = prompt.tokens, True
        self.first_new[rows] = prompt.tokens
        # The parent goes last and so keeps its partly filled page: there the prompt's KV will be
        # written, and from there the others copy.  Nothing is given back: this step reads it all.
        grant = self._append(np.roll(rows, -1), private) if private else EMPTY_GRANT
        self.first_new[first] = hit.tokens
        return replace(grant, cached_tokens=hit.tokens) if hit.tokens else grant

    def _admits(self, hit: Hit, whole: IntArray, taken: IntArray) -> bool:
        """Say whether what is asked and what is taken would fit beside what is found, [tables].

        Pages that are hit and that nobody holds are among the free ones, and will not be any more.
        """
        found, ref = hit.columns(), self.tables.ref
        idle = np.array([np.count_nonzero(ref[pages] == 0) for pages in hit.pages])
        leave = self._watermark if self.active.any() else 0
        return all(
            self.pools.fits(np.maximum(pages - found, 0) + idle, leave) for pages in (whole, taken)
        )

    def _asked(self, prompt: Prompt, demand: Demand, sequences: int) -> IntArray:
        """Return the pages that have to be free for an admission, [tables].

        Those of the whole group at its whole length, but no more of a sequence than it ever holds.
        """
        shapes = self.tables.shapes
        if demand.private_tokens:
            return self._taken(prompt.tokens, demand.private_tokens, sequences)
        length = max(prompt.tokens, prompt.whole_tokens)
        whole = self._columns(length)
        most = np.minimum(whole, shapes.cap)
        if sequences >= demand.sequences:
            return most
        diverged = prompt.whole_tokens > demand.prompt_tokens
        shared = self._full_columns(demand.prompt_tokens) if diverged else whole
        kept = np.maximum(shared - (whole - most), 0)  # of the shared ones the last are held
        return kept + demand.sequences * (most - kept)

    def _taken(self, tokens: int, private: int, sequences: int) -> IntArray:
        """Return the pages that an admission takes at once, [tables]."""
        if not private:
            return self._columns(tokens)
        shared = self._full_columns(tokens)
        return shared + sequences * (self._columns(tokens + private) - shared)

    def _columns(self, length: int) -> IntArray:
        return self.tables.shapes.columns(np.array([length]))[:, 0]

    def _full_columns(self, length: int) -> IntArray:
        """Return the columns that are full at this length and not written again, [tables]."""
        shapes = self.tables.shapes
        full = (length + shapes.before[:, 0]) // shapes.page_tokens[:, 0]
        written_once = np.array([table.kind == "cross" for table in shapes.tables])
        return np.where(shapes.grows[:, 0], full, np.where(written_once, self._columns(length), 0))

    def _fits_empty(self, pages: IntArray) -> bool:
        return self.pools.fits(pages, self.pools.free() - self.pools.sizes)

    def _never(self, pages: IntArray) -> str:
        return (
            f"{int(pages.sum())} pages are needed, the pool has {self.pools.num_pages}"
            if len(self.pools.sizes) == 1
            else f"{pages.tolist()} pages are needed, the pools have {self.pools.sizes.tolist()}"
        )

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        tables, lengths = self.tables, self.length[rows]
        behind = tables.behind(rows, lengths)
        if not self._serves(rows, lengths, n, behind):
            self._refused = rows
            return None
        self._refused = NO_PAGES
        if len(rows) > 1 and self.index.mixes(tables.leading(rows, behind)[3]):
            for row in rows.reshape(-1, 1):
                self._forget(row)
                grant = self._append(row, n)
                assert grant is EMPTY_GRANT
            return grant
        self._forget(rows)
        return self._append(rows, n)

    def _forget(self, rows: IntArray) -> None:
        """Give back what lies behind the next token of each row."""
        behind = self.tables.behind(rows, self.length[rows])
        if behind.any():
            self.tables.forget(rows, behind)
            self.first_new[rows] = self.length[rows]

    def _serves(self, rows: IntArray, lengths: IntArray, n: int, behind: IntArray) -> bool:
        """Say whether rows can grow by `n`, one after the other, after `behind` has gone."""
        tables = self.tables
        takes = tables.lacking(rows, lengths + n)
        table, at = tables.to_copy(rows, lengths)
        np.add.at(takes, (table, at), 1)
        if not takes.any():
            return True
        gives = np.zeros_like(takes)
        if behind.any():
            of_table, row, _, pages = tables.leading(rows, behind)
            free = tables.unheld(pages)
            order = np.argsort(rows, kind="stable")
            place = order[np.searchsorted(rows[order], row[free])]
            np.add.at(gives, (of_table[free], place), 1)
        return self.pools.serves(takes.T, gives.T)

    def _append(self, rows: IntArray, n: int) -> Grant:
        """Give each row `n` slots; there is room."""
        tables, lengths = self.tables, self.length[rows]
        grant = EMPTY_GRANT
        table, at = tables.to_copy(rows, lengths)
        if len(table):
            grant = Grant(copies=tables.copy_on_write(table, rows[at], lengths[at]))
        lacking = tables.lacking(rows, lengths + n)
        if lacking.any():
            shapes = tables.shapes
            slots = lengths + shapes.before
            room = tables.count[:, rows] * shapes.page_tokens - slots
            tables.extend(rows, lacking, room if n > 1 else None)
        self.first_new[rows] = lengths
        self.length[rows] = lengths + n
        self.index.grown(rows, lengths + n)
        return grant

    def headroom(self, rows: IntArray) -> int:
        lengths = self.length[rows]
        behind = self.tables.behind(rows, lengths)
        return bisect_headroom(
            lambda n: self._serves(rows, lengths, n, behind),
            self.geometry.max_len - int(lengths.max()),
        )

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        """Return how many steps take pages only: none copies, and none gives a page back.

        A page that falls behind could let a request in that waits.
        """
        tables, lengths = self.tables, self.length[rows]
        if len(tables.to_copy(rows, lengths)[0]):
            return 0
        gone = tables.gone[tables.shapes.dropping[:, None], rows]
        at_most = min(at_most, tables.shapes.until_behind(lengths, gone))
        return bisect_headroom(
            lambda n: self.pools.quiet(tables.lacking(rows, lengths + n).sum(axis=1)), at_most
        )

    def truncate(self, row: int, n: int) -> Grant:
        tables, length = self.tables, int(self.length[row]) - n
        if not tables.shapes.grows.all():
            raise Unsupported(
                "a state has no past to go back to, and layers with an encoder's tokens no part of "
                "one: speculative decoding needs layers that keep tokens"
            )
        if (
            tables.shapes.behind(np.array([length])).ravel().tolist()
            < tables.gone[tables.shapes.dropping, row].tolist()
        ):
            raise Unsupported("what lies behind a window was given back, and is needed again")
        self.length[row] = length
        self.first_new[row] = min(int(self.first_new[row]), length)
        self.index.truncated(row, length)
        tables.cut(row, self._columns(length))
        return EMPTY_GRANT

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        self.tables.share(parent, children)
        self.index.diverged(np.append(children, parent))
        self.length[children] = self.first_new[children] = self.length[parent]
        self.active[children] = True
        return EMPTY_GRANT

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        self.tables.reassign(rows, parents)
        self.index.diverged(rows)
        self.first_new[rows] = self.first_new[parents]
        return EMPTY_GRANT

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        waiting = self._refused[self.active[self._refused]]
        if len(waiting):
            # As if what lies behind them had been given back when they were refused.
            self._refused = NO_PAGES
            self._forget(waiting)
        for row in rows.tolist():
            self.tables.clear(row)
        self.index.diverged(rows)
        self.length[rows] = self.first_new[rows] = 0
        self.active[rows] = False
        return EMPTY_GRANT

    # -- views -------------------------------------------------------------------------------
    def layer_slots(self, row: int, layer_group: int) -> IntArray:
        group, index = self.geometry.layer_groups[layer_group], self._table_of[layer_group]
        slots = self.tables.slots(row, index)
        first = self.tables.shapes.tables[index].before if group.grows else 0
        return slots[first : first + int(group.slots(self.length[row]))]

    def slot_places(self, layer_group: int, slots: IntArray) -> IntArray:
        groups, index = self.geometry.layer_groups, self._table_of[layer_group]
        shape = self.tables.shapes.tables[index]
        ahead = sum(groups[m].slot_bytes for m in shape.members if m < layer_group)
        page, offset = slots // shape.page_tokens, slots % shape.page_tokens
        within = ahead * shape.page_tokens + offset * groups[layer_group].slot_bytes
        return self.pools.places(index, page) + within

    def table_entries(self, longest: int | IntArray) -> int | IntArray:
        return self.tables.shapes.entries(longest)

    def layer_layout(self, rows: IntArray, layer_group: int) -> BlockTable:
        index = self._table_of[layer_group]
        width = int(self.tables.count[index, rows].max(initial=0))
        table = self.tables.table[index][rows, :width]
        return BlockTable(self.tables.shapes.tables[index].page_tokens, table, self.length[rows])

    def extents(self, row: int) -> IntArray:
        """Return the pages of the first layer group's table, as stretches of its slots."""
        t, pages = self.tables.shapes.tables[0].page_tokens, self.tables.pages(row, 0)
        pages = pages[pages >= 0]
        return np.column_stack([pages * t, np.full_like(pages, t)])

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        tables = self.tables
        past = self.length[rows] - np.arange(steps - 1, -1, -1)[:, None]
        slots = self._slots(rows, past, finals)
        to_come = self._to_come(rows, past)
        free = self.pools.free()[None, :] + to_come
        held = self.pools.sizes - free
        in_use = held @ self.pools.page_bytes
        cached = self.pools.cached_before(to_come) @ self.pools.page_bytes
        logical = tables.entries - to_come.sum(axis=1)
        return Usage(
            token=slots.token,
            reserved=slots.reserved,
            internal=in_use - slots.token - slots.reserved - slots.expired,
            round_up=np.zeros_like(in_use),
            cached=cached,
            free=self.geometry.capacity_bytes - in_use - cached,
            pages=held.sum(axis=1),
            logical_pages=logical,
            metadata_bytes=logical * BLOCK_TABLE_ENTRY_BYTES,
            expired=slots.expired,
        )

    def _slots(self, rows: IntArray, past: IntArray, finals: IntArray) -> account.Slots:
        """Return where the slots of live rows are, which had these lengths, [steps, rows]."""
        tables, groups, lengths = self.tables, self.geometry.layer_groups, past[-1]
        if len(past) > 1:
            return account.alone(tables, groups, rows, past, past - 1, finals)
        queries, found = self.first_new[rows], None
        if self._slot_bytes is not None and len(rows) == np.count_nonzero(self.active):
            found = account.quick(tables, self._slot_bytes, rows, lengths, queries, finals)
        if found is None and not tables.is_shared:
            found = account.alone(tables, groups, rows, past, queries[None, :], finals)
        return found or account.together(tables, groups, rows, lengths, queries, finals)

    def _to_come(self, rows: IntArray, past: IntArray) -> IntArray:
        """Return the pages of each pool that rows took after each of these steps, [steps, pools].

        `past` [steps, rows] are their lengths then; steps of growth by one slot give nothing back.
        """
        sizes = len(self.pools.sizes)
        if len(past) == 1:
            return np.zeros((1, sizes), dtype=np.int64)
        shapes, held = self.tables.shapes, self.tables.count[:, rows]
        found = [(held - shapes.columns(lengths)).sum(axis=1) for lengths in past]
        pool_of = np.array([table.pool for table in shapes.tables])
        return np.array(found) @ (pool_of[:, None] == np.arange(sizes)).astype(np.int64)

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free = int(self.pools.free().sum())
        none = np.zeros((1, len(self.pools.sizes)), dtype=np.int64)
        cached = int(self.pools.cached_before(none).sum())
        return self.pools.num_pages - free, cached, free - cached

    def check(self) -> None:
        self.tables.check()
        self.index.check(self.length)
        count, columns = self.tables.count, self.tables.shapes.columns(self.length)
        assert (count == columns).all(), "a row holds pages it does not fill"
        at = self.tables.shapes.dropping
        needed = self.tables.shapes.behind(self.first_new)
        assert (self.tables.gone[at] <= needed).all(), "a page was given back that is still read"
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
