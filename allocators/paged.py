"""PagedAttention: fixed-size blocks, block tables, reference counts, copy-on-write.

Follows Kwon et al., SOSP 2023 (arXiv 2309.06180), sections 4.2 to 4.4: a block is taken only when
the last one is full, so that a sequence wastes less than one block; forked sequences share blocks,
and a write to a block with more than one holder copies that block first.

With a prefix index full blocks of known tokens are shared between requests and kept after their end
until their memory is needed (docs/prefix.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    Allocator,
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
from allocators.host import HostPages, HostTier
from allocators.knobs import check_blocks
from allocators.layered.build import check_knobs
from allocators.layered.paged import LayeredPaged
from allocators.page_table import PageTable, ceil_div
from allocators.prefix import attach
from allocators.prefix.caching import PrefixCaching
from allocators.rules import paged as rules
from allocators.rules.answers import ask_of
from allocators.rules.hashed import ORDERS, HashedArrays, hashed_arrays


class Paged(PrefixCaching):
    """Blocks of `block_size` tokens; admission leaves the share `watermark` of them free.

    `prefix_index` (none, hash, radix) finds blocks that are already in memory, `eviction` (lru,
    lfu, fifo, s3fifo) says which cached block gives way first, and `free_order` (unkeyed_first,
    by_age) whether blocks without a key go before all of them.  With `offload` a cached block is
    saved in host memory before it gives way, and found there.
    """

    block_tables: ClassVar[bool] = True

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        groups: str = "hybrid",
        window_share: float | None = None,
        retention_tokens: int | None = None,
        **knobs: Any,
    ) -> Allocator:
        """Return this policy for a pool, of layer groups the one that `groups` names.

        `groups` (hybrid, uniform, split), `window_share` and `retention_tokens` are
        `LayeredPaged`'s; a model without layer groups does not need them.
        """
        layered = {
            "groups": groups,
            "window_share": window_share,
            "retention_tokens": retention_tokens,
        }
        if geometry.layer_groups and cls is not Paged:
            return super().of(geometry)  # a derived policy's rules are those of a uniform model
        if geometry.layer_groups:
            return LayeredPaged.of(geometry, **layered, **knobs)
        check_knobs(**layered)
        return cls(geometry, **knobs)

    def __init__(
        self,
        geometry: Geometry,
        *,
        block_size: int = 16,
        watermark: float = 0.0,
        prefix_index: str = "none",
        eviction: str = "lru",
        free_order: str = "unkeyed_first",
        offload: bool = False,
    ) -> None:
        check_blocks(block_size, watermark, offload)
        super().__init__(replace(geometry, page_tokens=block_size))
        num_blocks = geometry.capacity_tokens // block_size
        if num_blocks < 1:
            raise NeverFits(
                f"the pool of {geometry.capacity_tokens} tokens holds no block of {block_size}"
            )
        per_row = -(-geometry.max_len // block_size)
        self.pages = PageTable(geometry.max_seqs, per_row, num_blocks, block_size)
        self.watermark_blocks = int(watermark * num_blocks)
        host_pages = geometry.host_tokens // block_size
        tier = HostTier(host_pages) if offload else None
        self.index = attach(self.pages, prefix_index, eviction, free_order, tier)
        if offload and not host_pages:
            raise Unsupported("offload needs host memory for one block: raise engine.host_gib")
        self.host = HostPages(host_pages, tier)
        self.has_prefix_index = prefix_index != "none"
        compiled = prefix_index == "hash" and not offload
        self._order = ORDERS.get((eviction, free_order)) if compiled else None

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        t, sequences, private = self.geometry.page_tokens, len(rows), demand.private_tokens
        blocks = rules.asked(ask_of(prompt, demand), sequences, t)
        if blocks > self.pages.num_pages:
            raise NeverFits(
                f"{blocks} blocks of {t} tokens are needed, the pool has {self.pages.num_pages}"
            )
        found = self.index.find(prompt)
        # Hit blocks that nobody holds are among the free ones, and will not be any more.
        idle = np.count_nonzero(self.pages.ref[found] == 0) if len(found) else 0
        room = rules.admissible(len(self.pages.free), self.watermark_blocks, self.active)
        if blocks - len(found) + idle > room:
            return None
        first = int(rows[0])
        self.index.hold(first, found)
        fetched = self.index.behind(prompt, found)
        self.index.claim(prompt, found, fetched)
        self.pages.append(first, -(-prompt.tokens // t) - len(found))
        self.index.admitted(first, prompt, found, alone=sequences == 1)
        if sequences > 1:
            self.pages.share(first, rows[1:], -(-prompt.tokens // t))
        for row in rows.tolist():
            self.length[row], self.active[row] = prompt.tokens, True
        # The parent goes last and so keeps its partly filled block: there the prompt's KV will be
        # written, and from there the others copy.
        grant = self.grow(np.roll(rows, -1), private) if private else self.index.moved(EMPTY_GRANT)
        hits = len(found) + fetched
        return replace(grant, cached_tokens=hits * t) if hits else grant

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        pages, lengths = self.pages, self.length[rows]
        at, missing, room = pages.lacking(rows, lengths, n)
        copiers = pages.to_copy(rows, lengths)
        if int(missing.sum()) + len(copiers) > len(pages.free):
            return None
        grant = EMPTY_GRANT
        if len(copiers):
            grant = Grant(copies=pages.copy_on_write(rows[copiers], lengths[copiers])[0])
        if len(at):
            pages.spread(rows[at], missing, room)
        after = lengths + n
        self.length[rows] = after
        self.index.grown(rows, lengths, after)
        return self.index.moved(grant)

    def headroom(self, rows: IntArray) -> int:
        lengths = self.length[rows]
        free = len(self.pages.free) - len(self.pages.to_copy(rows, lengths))
        return bisect_headroom(
            lambda n: int(self.pages.missing(rows, lengths, n).sum()) <= free,
            self.geometry.max_len - int(lengths.max()),
        )

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        lengths = self.length[rows]
        if len(self.pages.to_copy(rows, lengths)):
            return 0
        free = self.pages.free.quiet
        return bisect_headroom(
            lambda n: int(self.pages.missing(rows, lengths, n).sum()) <= free, at_most
        )

    def truncate(self, row: int, n: int) -> Grant:
        self.length[row] -= n
        self.index.truncated(row, int(self.length[row]))
        self.pages.drop(row, keep=-(-int(self.length[row]) // self.geometry.page_tokens))
        return EMPTY_GRANT

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        self.pages.share(parent, children, int(self.pages.count[parent]))
        self.index.diverged(np.append(children, parent))
        self.length[children] = self.length[parent]
        self.active[children] = True
        return EMPTY_GRANT

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        self.pages.reassign(rows, parents, self.pages.count[rows])
        self.index.diverged(rows)
        return EMPTY_GRANT

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        for row in rows.tolist():
            self.pages.drop(row)
            self.length[row], self.active[row] = 0, False
        self.index.released(rows)
        return EMPTY_GRANT

    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        swaps = self.host.save(ticket, self.pages, rows, self.length[rows])
        return None if swaps is None else replace(self.release(rows), swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        beside = self.watermark_blocks + len(rows) if self.active.any() else 0
        if self.host.pages_of(ticket) + beside > len(self.pages.free):
            return None
        self.length[rows], swaps = self.host.restore(ticket, self.pages, rows)
        self.active[rows] = True
        self.index.diverged(rows)  # what it holds is not looked up any more
        return self.index.moved(Grant(swaps_in=swaps))

    # -- views -------------------------------------------------------------------------------
    def layout(self, rows: IntArray) -> BlockTable:
        width = int(self.pages.count[rows].max(initial=0))
        table = self.pages.table[rows, :width]
        return BlockTable(self.geometry.page_tokens, table, self.length[rows])

    def addresses(self, row: int) -> IntArray:
        return self.pages.addresses(row, int(self.length[row]))

    def extents(self, row: int) -> IntArray:
        return self.pages.extents(row)

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        t, per_token = self.geometry.page_tokens, self.geometry.bytes_per_token
        lengths = self.length[rows]
        spare, later, to_come = self.pages.slack(rows, lengths, finals, steps, elastic=True)
        held = self.pages.num_pages - len(self.pages.free) - to_come
        # Sequences that a static batch still holds after their end keep blocks nobody will read.
        all_live = len(rows) == np.count_nonzero(self.active)
        live = held if all_live else self.pages.distinct_pages(rows, lengths) - to_come
        cached = self.index.cached_before(to_come) * t * per_token
        logical = int(self.pages.count[self.active].sum()) - to_come
        capacity_bytes = self.geometry.capacity_bytes
        return Usage(
            *rules.account(held, live, spare, later, logical, cached, t, per_token, capacity_bytes)
        )

    def arrays(self) -> rules.PagedArrays | HashedArrays | None:
        if type(self) is not Paged:
            return None
        geometry, per_token = self.geometry, self.geometry.bytes_per_token
        arrays = rules.PagedArrays(
            self.pages.arrays,
            self.length,
            self.active,
            self.watermark_blocks,
            per_token,
            geometry.capacity_bytes,
        )
        if not self.has_prefix_index:
            return arrays
        if self._order is None:
            return None
        return hashed_arrays(arrays, self.pages.free.pages(), self._order)

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free = len(self.pages.free)
        cached = int(self.index.cached_before(np.zeros(1, dtype=np.int64))[0])
        return self.pages.num_pages - free, cached, free - cached

    def check(self) -> None:
        self.pages.check()
        self.host.check()
        self.index.check(self.length)
        expected = ceil_div(self.length, self.geometry.page_tokens)
        assert (self.pages.count == expected).all(), "a row holds blocks it does not fill"
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
