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
from allocators.layered import account, growing
from allocators.layered.base import LayeredAllocator
from allocators.layered.build import caching_queue, check_knobs, make_pools, spread_over
from allocators.layered.grouping import Spread
from allocators.layered.growing import Growth
from allocators.layered.host import HostLayers
from allocators.layered.index import Hit, LayerIndex, NoIndex
from allocators.layered.pools import CachingPools, PagePools
from allocators.layered.prefix import HashLayerIndex, HybridIndex
from allocators.layered.shapes import TableShapes
from allocators.layered.tables import LayerTables
from allocators.prefix.caching import CountsHits


class LayeredPaged(LayeredAllocator, CountsHits):
    """Pages of `spread`, taken from `pools`; admission leaves `watermark` of each pool free."""

    block_tables: ClassVar[bool] = True
    hash_index: ClassVar[type[HashLayerIndex]] = HybridIndex

    def __init__(
        self,
        geometry: Geometry,
        spread: Spread,
        pools: PagePools,
        *,
        watermark: float = 0.0,
        retention_tokens: int | None = None,
    ) -> None:
        geometry = replace(geometry, layer_groups=spread.layer_groups)
        super().__init__(replace(geometry, page_tokens=spread.tables[0].page_tokens))
        shapes = TableShapes(spread.tables, self.geometry)
        self.tables = LayerTables(shapes, geometry.max_seqs, pools)
        self.pools = pools
        self._watermark = (watermark * pools.sizes).astype(np.int64)
        #: up to which length a row fills pages of its own and leaves none behind; 0: not known
        self._until: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)
        self._table_of = {
            member: index for index, table in enumerate(spread.tables) for member in table.members
        }
        self.has_prefix_index = isinstance(pools, CachingPools)
        self.index: LayerIndex = NoIndex(self.tables)
        if self.has_prefix_index:
            self.index = self.hash_index(self.tables, retention_tokens)
        self.host = HostLayers(geometry.host_tokens * geometry.bytes_per_token, self.tables)

    def lookup(self, prompt: Prompt) -> int:
        return self.index.find(prompt).tokens

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        groups: str = "hybrid",
        window_share: float | None = None,
        retention_tokens: int | None = None,
        block_size: int = 16,
        watermark: float = 0.0,
        prefix_index: str = "none",
        eviction: str = "lru",
        free_order: str = "unkeyed_first",
        offload: bool = False,
    ) -> LayeredPaged:
        """Return the policy of these knobs; raises as `Allocator.of` does.

        `retention_tokens`: at which intervals a prefix is kept for later in layers with a window,
        beside where prompts end and where they part (`HashLayerIndex`); None: everywhere.
        """
        cls.require_layer_groups(geometry)
        check_knobs(groups, window_share, retention_tokens)
        check_blocks(block_size, watermark, offload)
        spread, pages = spread_over(geometry, groups, block_size, window_share)
        knobs = prefix_index, eviction, free_order, offload, retention_tokens
        pools = make_pools(spread, pages, caching_queue(spread, *knobs))
        return cls(geometry, spread, pools, watermark=watermark, retention_tokens=retention_tokens)

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        tables, sequences, private = self.tables, len(rows), demand.private_tokens
        whole = self._asked(prompt, demand, sequences)
        if not self.pools.fits_empty(whole):
            raise NeverFits(self._never(whole))
        hit = self.index.find(prompt)
        taken = self._taken(prompt.tokens, private, sequences)
        if not self._admits(hit, whole, taken):
            return None
        first = rows[:1]
        self.index.hold(int(rows[0]), hit)
        tables.extend(first, tables.lacking(first, np.array([prompt.tokens])))
        self.index.admitted(int(rows[0]), prompt, demand, hit, alone=sequences == 1)
        if sequences > 1:
            tables.share(int(rows[0]), rows[1:])
        self.length[rows], self.active[rows] = prompt.tokens, True
        self._compute(rows, np.where(rows == rows[0], hit.tokens, prompt.tokens))
        # The parent goes last and so keeps its partly filled page: there the prompt's KV will be
        # written, and from there the others copy.  Nothing is given back: this step reads it all.
        grant = self._grow_apart(np.roll(rows, -1), private) if private else EMPTY_GRANT
        return replace(grant, cached_tokens=hit.tokens) if hit.tokens else grant

    def _grow_apart(self, rows: IntArray, n: int) -> Grant:
        """Give each sequence of a new group `n` slots of its own behind the prompt."""
        asked = growing.growth(self.tables, rows, self.length[rows], n, None)
        grant = self._carry_out(asked, n)
        self._lengthen(rows, n)
        return grant

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
        full = np.where(shapes.grows[:, 0], full, self._columns(length))
        return np.where(shapes.rewritten[:, 0], 0, full)

    def _never(self, pages: IntArray) -> str:
        return (
            f"{int(pages.sum())} pages are needed, the pool has {self.pools.num_pages}"
            if len(self.pools.sizes) == 1
            else f"{pages.tolist()} pages are needed, the pools have {self.pools.sizes.tolist()}"
        )

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        asked = self._asked_growth(rows, n)
        if not growing.serves(self.tables, self.pools, asked):
            self.index.refused(int(rows[0]))
            return None
        if self.index.is_refused(rows[:1]):
            self._forget_first(rows[:1])
            asked = self._asked_growth(rows, n)
        if len(asked.rows) > 1 and self.index.mixes(asked.leaving[3]):
            each = asked.rows.reshape(-1, 1)
            grant = join([self._carry_out(self._asked_growth(row, n), n) for row in each])
        else:
            grant = self._carry_out(asked, n)
        self._lengthen(rows, n)
        return grant

    def _asked_growth(self, rows: IntArray, n: int) -> Growth:
        """Return what these rows ask for to grow by `n`: those of which that is anything."""
        lengths = self.length[rows]
        at = np.flatnonzero(lengths + n > self._until[rows])
        if len(at) < len(rows):
            rows, lengths = rows[at], lengths[at]
        return growing.growth(self.tables, rows, lengths, n, self._next_query(rows))

    def _carry_out(self, asked: Growth, n: int) -> Grant:
        if not len(asked.rows):
            return EMPTY_GRANT
        copies = growing.carry_out(self.tables, asked, n)
        self._until[asked.rows] = self.tables.until(asked.rows)
        return EMPTY_GRANT if copies is None else Grant(copies=copies)

    def _lengthen(self, rows: IntArray, n: int) -> None:
        lengths = self.length[rows]
        self._compute(rows, lengths)
        self.length[rows] = lengths + n
        self.index.grown(rows, lengths + n)

    def _forget_first(self, row: IntArray) -> None:
        """Give back what the row that was refused leaves behind, as before any release since."""
        behind = self.tables.behind(row, self._next_query(row))
        self.index.make_up(lambda: self.tables.forget(row, behind))

    def leading(self, rows: IntArray) -> int | None:
        asked = self._asked_growth(rows, 1)
        served = growing.leading(self.tables, self.pools, asked)
        return None if served is None else int(np.flatnonzero(rows == asked.rows[served])[0])

    def headroom(self, rows: IntArray) -> int:
        return bisect_headroom(
            lambda n: growing.serves(self.tables, self.pools, self._asked_growth(rows, n)),
            self.geometry.max_len - int(self.length[rows].max()),
        )

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        """Return how many steps take pages only; one that is given back may let somebody in."""
        tables, lengths = self.tables, self.length[rows]
        if len(tables.to_copy(rows, lengths)[0]):
            return 0
        gone = tables.gone[tables.shapes.dropping[:, None], rows]
        return self._quiet_takes(rows, min(at_most, tables.shapes.until_behind(lengths, gone)))

    def lone_steps(self, rows: IntArray, at_most: int) -> int:
        """Return how many steps take pages that are free already, whatever they give back."""
        if self.tables.is_shared or self.has_prefix_index:
            return self.quiet_steps(rows, at_most)
        return self._quiet_takes(rows, at_most)

    def _quiet_takes(self, rows: IntArray, at_most: int) -> int:
        """Return for how many steps there are pages that may be taken in one go."""
        tables, lengths = self.tables, self.length[rows]
        return bisect_headroom(
            lambda n: self.pools.quiet(tables.lacking(rows, lengths + n).sum(axis=1)), at_most
        )

    def take_steps(self, rows: IntArray, n: int) -> Grant | None:
        if self.tables.is_shared or self.has_prefix_index:
            return self.grow(rows, n)
        growing.take_steps(self.tables, self.pools, self._until, rows, self.length[rows], n)
        self.length[rows] += n
        self.computes[rows], self.first_new[rows] = True, self.length[rows] - 1
        return EMPTY_GRANT

    def truncate(self, row: int, n: int) -> Grant:
        tables, length = self.tables, int(self.length[row]) - n
        if n and tables.shapes.rewritten.any():
            raise Unsupported("layers with a state cannot drop tokens: each overwrote the last")
        if (tables.shapes.columns_behind(length) < tables.gone[:, row]).any():
            raise Unsupported(
                f"tokens that sequence {row} would read after dropping {n} have left a window and "
                "were given back"
            )
        self.length[row], self._until[row] = length, 0
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
        self._until[children] = self._until[parent] = 0
        self.active[children] = True
        return EMPTY_GRANT

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        self.tables.reassign(rows, parents)
        self.index.diverged(rows)
        self._until[rows] = 0
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
        self.length[rows] = self.first_new[rows] = self._until[rows] = 0
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
        assert not self._until[~self.active].any(), "an ended sequence is told what to expect"
        growing.check(self.tables, self._until, self.length)
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
