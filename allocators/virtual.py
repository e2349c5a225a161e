"""vAttention: contiguous virtual ranges, physical page-groups committed on demand.

Follows Prabhu et al., ASPLOS 2025 (arXiv 2405.04437v3).  Each sequence takes a virtual range of
`max_len` tokens in 2 x layers tensors (`per_layer`) or in two tensors that hold all layers
(`sliced`); a page-group is one page in each of them, so it holds

    page_bytes / (kv_heads per rank x head_dim x dtype_bytes) [/ layers when sliced]   tokens.

Options of the paper: *deferred* reclamation (an ended sequence's range keeps its page-groups for
the next one), *eager* mapping (one idle range is kept mapped ahead) and *background* mapping (the
page-groups of the next step are mapped while this one computes).  The original shares nothing; with
`sharing=alias` a fork maps the parent's page-groups into the child's range and copies only the one
being written, and with a prefix index a prompt maps those that hold its beginning (docs/prefix.md).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    Allocator,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    Strided,
    Unsupported,
    Usage,
    is_number,
    one_of,
)
from allocators.grants import join
from allocators.growth import bisect_headroom, pages_when_forked
from allocators.host import HostPages
from allocators.page_table import NO_PAGES, PageTable, ceil_div
from allocators.prefix.index import PrefixStats
from allocators.virtual_prefix import attach

PAGE_BYTES = {"64KiB": 64 << 10, "128KiB": 128 << 10, "256KiB": 256 << 10, "2MiB": 2 << 20}
#: bytes of one page-table entry of the driver
PAGE_TABLE_ENTRY_BYTES = 8


def page_group_tokens(geometry: Geometry, page_bytes: int, layout: str) -> int:
    """Return how many tokens one page-group holds (vAttention, section 5.2 and its code)."""
    tokens = page_bytes // (geometry.kv_heads * geometry.head_dim * geometry.dtype_bytes)
    return tokens // geometry.layers if layout == "sliced" else tokens


class Virtual(Allocator):
    """Page-groups of `page_size` bytes a tensor; see the module docstring for the options.

    `reclaim_free` is the share of page-groups that deferred reclamation leaves free: above it,
    ended sequences keep their page-groups mapped.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        page_size: str = "2MiB",
        layout: str = "per_layer",
        sharing: str = "alias",
        deferred: bool = True,
        eager: bool = True,
        background: bool = True,
        reclaim_free: float = 0.1,
        prefix_index: str = "none",
    ) -> None:
        one_of("page_size", page_size, PAGE_BYTES)
        one_of("layout", layout, ("per_layer", "sliced"))
        one_of("sharing", sharing, ("alias", "copy"))
        for name, value in (("deferred", deferred), ("eager", eager), ("background", background)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        if not is_number(reclaim_free) or not 0.0 <= reclaim_free <= 1.0:
            raise ValueError(f"reclaim_free must be from 0 to 1, got {reclaim_free!r}")
        self.page_bytes = PAGE_BYTES[page_size]
        tokens = page_group_tokens(geometry, self.page_bytes, layout)
        if tokens < 1:
            raise Unsupported(f"a {page_size} page ({layout}) holds less than one token's KV")
        super().__init__(replace(geometry, page_tokens=tokens))
        self.pages_per_group = 2 if layout == "sliced" else 2 * geometry.layers
        self.page_group_bytes = self.page_bytes * self.pages_per_group * geometry.ranks
        num_page_groups = geometry.capacity_bytes // self.page_group_bytes
        if num_page_groups < 1:
            raise NeverFits(
                f"the pool of {geometry.capacity_bytes} bytes holds no page-group of "
                f"{self.page_group_bytes} bytes"
            )
        self.alias, self.deferred = sharing == "alias", deferred
        self.eager, self.background = eager, background
        self.keep_free = int(reclaim_free * num_page_groups) if deferred else 0
        per_row = -(-geometry.max_len // tokens)
        self.pages = PageTable(geometry.max_seqs, per_row, num_page_groups, tokens)
        self.index, self.ranges = attach(self.pages, prefix_index, sharing)
        self.has_prefix_index = prefix_index != "none"
        self.host = HostPages(geometry.host_tokens // tokens)
        self.range_of: IntArray = np.full(geometry.max_seqs, -1, dtype=np.int64)

    @property
    def prefix_stats(self) -> PrefixStats:
        """Lookups, hits and evictions so far; all zero without an index."""
        return self.index.stats()

    @property
    def evictions(self) -> int:
        """Page-groups of a known prefix that were unmapped or overwritten, so far."""
        return self.index.stats().evictions

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        t, sequences, private = self.geometry.page_tokens, len(rows), demand.private_tokens
        whole = -(-(prompt.tokens + private) // t)
        shared = 0
        if self.alias and sequences > 1:
            shared = prompt.tokens // t if private else whole
        forked = pages_when_forked(prompt, demand, sequences, t, self.alias)
        needed = max(shared + sequences * (whole - shared), forked)
        if needed > self.pages.num_pages:
            raise NeverFits(
                f"{needed} page-groups of {t} tokens are needed, the pool has "
                f"{self.pages.num_pages}"
            )
        found = self.index.find(prompt)
        # Those of the hit that are cached will not be available any more.
        if needed - len(found) > self._available() - self.ranges.cached_of(found):
            return None
        steps = [self._open(rows[:1], prompt.tokens, found)]
        self.index.admitted(int(self.range_of[rows[0]]), prompt, found, alone=sequences == 1)
        if sequences > 1:
            steps.append(self._continue(int(rows[0]), rows[1:], diverging=private > 0))
        if private:
            steps.append(self._diverge(rows, private))
        if self.background:
            steps.append(self._map_ahead(rows))
        if self.eager:
            steps.append(Grant(ahead_maps=self.ranges.prepare_one()))
        hit = len(found) * t
        return replace(join(steps), cached_tokens=hit) if hit else join(steps)

    def lookup(self, prompt: Prompt) -> int:
        return len(self.index.find(prompt)) * self.geometry.page_tokens

    def _open(self, rows: IntArray, tokens: int, found: IntArray = NO_PAGES) -> Grant:
        """Give each sequence a range with room for `tokens`, which begins with the pages `found`.

        The caller has counted the pages.
        """
        steps = []
        for row in rows.tolist():
            need = -(-tokens // self.geometry.page_tokens)
            vrange, opened = self.ranges.open(need, found)
            self.range_of[row] = vrange
            steps.append(opened)
            steps.append(self._extend(np.array([vrange]), np.zeros(1, np.int64), tokens))
        self.length[rows] = tokens
        self.active[rows] = True
        return join(steps)

    def _diverge(self, rows: IntArray, n: int) -> Grant:
        """Give each sequence of a new group `n` slots of its own behind the prompt.

        The others take a copy of the partly filled page-group of `rows[0]`, which they do not map
        even for a moment: one grant cannot map a page-group and then another in its place.
        """
        lengths, ranges = self.length[rows], self.range_of[rows]
        grant = self._extend(ranges, lengths, n)
        self.length[rows] = lengths + n
        column, tail = divmod(int(lengths[0]), self.geometry.page_tokens)
        if not (self.alias and tail):
            return grant
        first = self.pages.table[ranges, column] * self.geometry.page_tokens
        copies = np.column_stack(np.broadcast_arrays(first[0], first[1:], tail))
        return replace(grant, copies=copies)

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        lengths, ranges = self.length[rows], self.range_of[rows]
        missing = self.pages.missing(ranges, lengths, n)
        copiers = self.pages.to_copy(ranges, lengths)
        if int(missing.sum()) + len(copiers) > self._available():
            return None
        self.length[rows] = lengths + n
        steps = []
        if len(copiers):
            steps.append(self._copy_on_write(ranges[copiers], lengths[copiers]))
        if missing.any():
            steps.append(self._extend(ranges, lengths, n))
        self.index.grown(ranges, lengths, lengths + n)
        if self.background:
            steps.append(self._map_ahead(rows))
        return join(steps)

    def headroom(self, rows: IntArray) -> int:
        lengths, ranges = self.length[rows], self.range_of[rows]
        available = self._available() - len(self.pages.to_copy(ranges, lengths))
        return bisect_headroom(
            lambda n: int(self.pages.missing(ranges, lengths, n).sum()) <= available,
            self.geometry.max_len - int(lengths.max()),
        )

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        lengths, ranges = self.length[rows], self.range_of[rows]
        if len(self.pages.to_copy(ranges, lengths)):
            return 0
        room = int((self.pages.count[ranges] * self.geometry.page_tokens - lengths).min())
        return max(0, min(at_most, room - self.background))

    def truncate(self, row: int, n: int) -> Grant:
        self.length[row] -= n
        vrange = int(self.range_of[row])
        self.index.truncated(vrange, int(self.length[row]))
        keep = -(-int(self.length[row]) // self.geometry.page_tokens)
        # Exclusive page-groups stay mapped for the tokens to come; shared ones cannot be written.
        behind = self.pages.table[vrange, keep : int(self.pages.count[vrange])]
        shared = np.flatnonzero(self.pages.ref[behind] > 1)
        if not len(shared):
            return EMPTY_GRANT
        return Grant(unmaps=self.ranges.drop(vrange, keep=keep + int(shared[0])))

    def _available(self) -> int:
        return len(self.pages.free) + self.ranges.cached

    def _extend(self, ranges: IntArray, lengths: IntArray, n: int) -> Grant:
        missing = self.pages.missing(ranges, lengths, n)
        unmaps = self.ranges.reclaim(int(missing.sum()))
        return Grant(unmaps=unmaps, maps=self.pages.extend(ranges, missing, lengths))

    def _copy_on_write(self, ranges: IntArray, lengths: IntArray) -> Grant:
        reclaimed = self.ranges.reclaim(len(ranges))
        copies, old = self.pages.copy_on_write(ranges, lengths)
        self.ranges.left(old)
        column = lengths // self.geometry.page_tokens
        unmaps = np.column_stack([ranges, column, old])
        maps = np.column_stack([ranges, column, self.pages.table[ranges, column]])
        return Grant(unmaps=np.concatenate([reclaimed, unmaps]), maps=maps, copies=copies)

    def _map_ahead(self, rows: IntArray) -> Grant:
        """Map the page-groups that the next step will need, as far as free ones go."""
        ranges, lengths = self.range_of[rows], self.length[rows]
        full = self.pages.count[ranges] * self.geometry.page_tokens == lengths
        full &= lengths < self.geometry.max_len
        if not full.any():
            return EMPTY_GRANT
        at = np.flatnonzero(full)[: len(self.pages.free)]
        maps = self.pages.extend(ranges[at], np.ones(len(at), dtype=np.int64), lengths[at])
        return Grant(ahead_maps=maps)

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        need = -(-int(self.length[parent]) // self.geometry.page_tokens)
        if not self.alias and need * len(children) > self._available():
            return None
        grant = self._continue(parent, children)
        self.index.diverged(self.range_of[np.append(children, parent)])
        return grant

    def _continue(self, parent: int, children: IntArray, diverging: bool = False) -> Grant:
        length, t = int(self.length[parent]), self.geometry.page_tokens
        source, need = int(self.range_of[parent]), -(-length // t)
        if not self.alias:
            opened = self._open(children, length)
            sources = np.full(len(children), source)
            copies = self._copy_ranges(sources, self.range_of[children], need)
            return join([opened, Grant(copies=copies)])
        steps = []
        for child in children.tolist():
            self.range_of[child], unmaps = self.ranges.acquire(0)
            steps.append(Grant(unmaps=unmaps))
        ranges = self.range_of[children]
        need = length // t if diverging else need
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
        used = ceil_div(self.length[rows], self.geometry.page_tokens)
        if self.alias:
            gone, come = self.pages.reassign(ranges, sources, used)
            self.ranges.left(gone[:, 2])
            self.index.diverged(ranges)
            return Grant(unmaps=gone, maps=come) if len(come) else EMPTY_GRANT
        moved = np.flatnonzero(rows != parents)
        copies = [
            self._copy_ranges(sources[i : i + 1], ranges[i : i + 1], int(used[i])) for i in moved
        ]
        return Grant(copies=np.concatenate(copies)) if copies else EMPTY_GRANT

    def _copy_ranges(self, sources: IntArray, targets: IntArray, pages: int) -> IntArray:
        t = self.geometry.page_tokens
        src = self.pages.table[sources, :pages].ravel() * t
        dst = self.pages.table[targets, :pages].ravel() * t
        return np.column_stack([src, dst, np.full(len(src), t)])

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        unmaps = [
            self.ranges.retire(vrange, self.deferred) for vrange in self.range_of[rows].tolist()
        ]
        self.index.released(self.range_of[rows])
        self.range_of[rows] = -1
        self.length[rows] = 0
        self.active[rows] = False
        wanted = min(self.keep_free, self._available())
        unmaps.append(self.ranges.reclaim(wanted))
        return Grant(unmaps=np.concatenate(unmaps))

    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        swaps = self.host.save(ticket, self.pages, self.range_of[rows], self.length[rows])
        return None if swaps is None else replace(self.release(rows), swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        needed = self.host.pages_of(ticket)
        if needed + (len(rows) if self.active.any() else 0) > self._available():
            return None
        unmaps = []
        for row in rows.tolist():
            self.range_of[row], unmapped = self.ranges.acquire(0)
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
        stride = self.pages.table.shape[1] * self.geometry.page_tokens
        return Strided(self.range_of[rows] * stride, self.length[rows])

    def addresses(self, row: int) -> IntArray:
        return self.pages.addresses(int(self.range_of[row]), int(self.length[row]))

    def extents(self, row: int) -> IntArray:
        return self.pages.extents(int(self.range_of[row]))

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        t, per_token = self.geometry.page_tokens, self.geometry.bytes_per_token
        ranges, lengths = self.range_of[rows], self.length[rows]
        spare, later, _ = self.pages.slack(ranges, lengths, finals, steps, elastic=False)
        held = self.pages.num_pages - len(self.pages.free) - self.ranges.cached
        all_live = len(rows) == np.count_nonzero(self.active)
        if all_live:
            written = held * t - spare
        else:
            inside = ceil_div(lengths, t) * t - lengths
            twice, _ = self.pages.shared_slack(ranges, lengths, finals)
            written = self.pages.distinct_pages(ranges, lengths) * t - inside.sum() + twice
            written = written - len(rows) * np.arange(steps - 1, -1, -1)
        token, reserved = written * per_token, later * per_token
        in_use, cached = held * self.page_group_bytes, self.ranges.cached * self.page_group_bytes
        logical = int(self.pages.count[self.range_of[self.active]].sum())
        flat = np.zeros(steps, dtype=np.int64)
        return Usage(
            token=token,
            reserved=reserved,
            internal=in_use - token - reserved,
            round_up=flat,
            cached=flat + cached,
            free=flat + self.geometry.capacity_bytes - in_use - cached,
            pages=flat + held,
            logical_pages=flat + logical,
            metadata_bytes=flat
            + int(self.pages.count.sum())
            * (self.pages_per_group * self.geometry.ranks * PAGE_TABLE_ENTRY_BYTES),
        )

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free, cached = len(self.pages.free), self.ranges.cached
        return self.pages.num_pages - free - cached, cached, free

    def check(self) -> None:
        self.pages.check()
        self.host.check()
        self.ranges.check(self.range_of[self.active])
        lengths = np.zeros_like(self.length)
        lengths[self.range_of[self.active]] = self.length[self.active]
        self.index.check(lengths)
        held = self.pages.count[self.range_of[self.active]] * self.geometry.page_tokens
        assert (held >= self.length[self.active]).all(), (
            "a range is not mapped as far as it is long"
        )
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
