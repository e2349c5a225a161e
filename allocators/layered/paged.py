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
    EMPTY_GRANT,
    BlockTable,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    StepGrants,
    Unsupported,
    Usage,
)
from allocators.grants import join
from allocators.growth import bisect_headroom
from allocators.knobs import check_blocks
from allocators.layered import account
from allocators.layered.base import LayeredAllocator
from allocators.layered.build import caching_queue, check_knobs, make_pools, spread_over
from allocators.layered.grouping import Spread
from allocators.layered.host import HostLayers
from allocators.layered.index import Hit, LayerIndex, NoIndex
from allocators.layered.pools import CachingPools, PagePools
from allocators.layered.prefix import HashLayerIndex, HybridIndex
from allocators.layered.shapes import TableShapes
from allocators.layered.tables import LayerTables
from allocators.prefix.index import PrefixStats


class LayeredPaged(LayeredAllocator):
    """Pages of `spread`, taken from `pools`; admission leaves `watermark` of each pool free."""

    block_tables: ClassVar[bool] = True
    hash_index: ClassVar[type[HashLayerIndex]] = HybridIndex

    def __init__(
        self, geometry: Geometry, spread: Spread, pools: PagePools, *, watermark: float = 0.0
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
        self.has_prefix_index = isinstance(pools, CachingPools)
        index = self.hash_index if self.has_prefix_index else NoIndex
        self.index: LayerIndex = index(self.tables)
        self.host = HostLayers(geometry.host_tokens * geometry.bytes_per_token, self.tables)

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
        self._compute(rows, np.where(rows == rows[0], hit.tokens, prompt.tokens))
        # The parent goes last and so keeps its partly filled page: there the prompt's KV will be
        # written, and from there the others copy.  Nothing is given back: this step reads it all.
        grant = self._append(np.roll(rows, -1), private) if private else EMPTY_GRANT
        return replace(grant, cached_tokens=hit.tokens) if hit.tokens else grant

    def _admits(self, hit: Hit, whole: IntArray, taken: IntArray) -> bool:
        """Say whether what is asked and what is taken would fit beside what is found, [tables].

        Pages that are hit and that nobody holds are among the free ones, and will not be any more.
        """
        found, ref = hit.columns(), self.tables.ref
        free = [pages[ref[pages] == 0] for pages in hit.pages]
        leave = self._watermark if self.active.any() else 0
        return all(
            self.pools.fits_beside(np.maximum(pages - found, 0), free, leave)
            for pages in (whole, taken)
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
        behind = tables.behind(rows, self._next_query(rows))
        if not self._serves(rows, lengths, n, behind):
            self.index.refused(int(rows[0]))
            return None
        if self.index.is_refused(rows[:1]):
            self._forget_first(rows[:1])
        if len(rows) > 1 and self.index.mixes(tables.leading(rows, behind)[3]):
            return join([self._grow_one(row, n) for row in rows.reshape(-1, 1)])
        return self._grow_one(rows, n)

    def _grow_one(self, rows: IntArray, n: int) -> Grant:
        self._forget(rows)
        return self._append(rows, n)

    def _forget(self, rows: IntArray) -> None:
        """Give back what lies behind the next token that is computed of each row."""
        self.tables.forget(rows, self.tables.behind(rows, self._next_query(rows)))

    def _forget_first(self, row: IntArray) -> None:
        """Do so for the row that was refused, as if before anything was released since then."""
        released = self.index.withdraw()
        self._forget(row)
        self.pools.give(*released)

    def _serves(self, rows: IntArray, lengths: IntArray, n: int, behind: IntArray) -> bool:
        """Say whether rows can grow by `n`, one after the other, after `behind` has gone."""
        tables = self.tables
        takes = tables.lacking(rows, lengths + n)
        table, at = tables.to_copy(rows, lengths)
        np.add.at(takes, (table, at), 1)
        if not takes.any():
            return True
        of_table, row, _, pages = tables.leading(rows, behind)
        free = tables.unheld(pages)
        order = np.argsort(rows, kind="stable")
        at = order[np.searchsorted(rows[order], row[free])]
        return self.pools.serves(takes.T, of_table[free], at, pages[free])

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
        self._compute(rows, lengths)
        self.length[rows] = lengths + n
        self.index.grown(rows, lengths + n)
        return grant

    def headroom(self, rows: IntArray) -> int:
        lengths = self.length[rows]
        behind = self.tables.behind(rows, self._next_query(rows))
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
        if n and tables.shapes.rewritten.any():
            raise Unsupported("layers with a state cannot drop tokens: each overwrote the last")
        if (tables.shapes.columns_behind(length) < tables.gone[:, row]).any():
            raise Unsupported(
                f"tokens that sequence {row} would read after dropping {n} have left a window and "
                "were given back"
            )
        self.length[row] = length
        self.first_new[row] = min(int(self.first_new[row]), length)
        self.index.truncated(row, length)
        tables.cut(row, self._columns(length))
        return EMPTY_GRANT

    def begin_step(self) -> StepGrants:
        self.index.planned()
        return super().begin_step()

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
        moved = rows[rows != parents]
        self.first_new[moved] = self.length[moved]
        return EMPTY_GRANT

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        if self.index.is_refused(rows):
            self._forget_first(rows[:1])
        for row in rows.tolist():
            self.tables.clear(row)
        self.index.diverged(rows)
        self.length[rows] = self.first_new[rows] = 0
        self.active[rows] = self.computes[rows] = False
        return EMPTY_GRANT

    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        swaps = self.host.save(ticket, rows, self.length[rows])
        return None if swaps is None else replace(self.release(rows), swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        need, leave = self.host.pages_of(ticket), 0
        if self.active.any():
            need = need + len(rows) * self.tables.shapes.grows[:, 0]
            leave = self._watermark
        if not self.pools.fits(need, leave):
            return None
        self.length[rows], swaps = self.host.restore(ticket, rows)
        self.first_new[rows] = self.length[rows]
        self.active[rows] = True
        self.index.diverged(rows)  # what it holds is not looked up any more
        return Grant(swaps_in=swaps)

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
        return self.tables.shapes.entries(longest) if self.block_tables else 0

    def layer_layout(self, rows: IntArray, layer_group: int) -> BlockTable:
        group, index = self.geometry.layer_groups[layer_group], self._table_of[layer_group]
        shape, slots = self.tables.shapes.tables[index], group.slots(self.length[rows])
        first = shape.before // shape.page_tokens if group.grows else 0
        width = -(-int(slots.max(initial=0)) // shape.page_tokens)
        table = self.tables.table[index][rows, first : first + width]
        return BlockTable(shape.page_tokens, table, slots)

    def extents(self, row: int) -> IntArray:
        """Return the pages of the first layer group's table, as stretches of its slots."""
        t, pages = self.tables.shapes.tables[0].page_tokens, self.tables.pages(row, 0)
        pages = pages[pages >= 0]
        return np.column_stack([pages * t, np.full_like(pages, t)])

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        return account.usage(self, rows, finals, steps)

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free = int(self.pools.free().sum())
        none = np.zeros((1, len(self.pools.sizes)), dtype=np.int64)
        cached = int(self.pools.cached_before(none).sum())
        return self.pools.num_pages - free, cached, free - cached

    def check(self) -> None:
        self.tables.check()
        self.index.check(self.length)
        self.host.check()
        count, columns = self.tables.count, self.tables.shapes.columns(self.length)
        assert (count == columns).all(), "a row holds pages it does not fill"
        at = self.tables.shapes.dropping
        needed = self.tables.shapes.behind(np.minimum(self.first_new, self.length))
        assert (self.tables.gone[at] <= needed).all(), "a page was given back that is still read"
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
