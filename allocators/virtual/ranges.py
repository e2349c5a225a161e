"""Virtual ranges, what each is to hold and what it has mapped: vAttention's slots of the batch.

    range   length   needed   mapped
      0       410       3        4      live: one page-group more than needed, its excess
      1         0       0        2      idle: all it has mapped is excess
      2       600       3        1      live: two page-groups are promised to it

A range is idle while its length is 0.  An end unmaps nothing: what a range has mapped beyond its
need stays, is at hand for the next one there, and counts as available, because it can be unmapped
for others at any time (`vattention.cu`, num_free_kvblocks).  What is promised is not available.
"""

from __future__ import annotations

import numpy as np

from allocators.base import EMPTY_GRANT, NO_MAPS, Grant, IntArray
from allocators.page_table import NO_PAGES, PageTable
from allocators.rules import mapping as rules


class Ranges:
    """`length` [ranges] is how many tokens each is to hold; `needed` page-groups follow from it."""

    def __init__(self, pages: PageTable) -> None:
        self.pages = pages
        self.length: IntArray = np.zeros(len(pages.count), dtype=np.int64)
        #: as the last step had it, or as let since: what vAttention's manager has been told
        self.told: IntArray = np.zeros(len(pages.count), dtype=np.int64)

    # -- how much there is -------------------------------------------------------------------
    def needed(self, lengths: IntArray | None = None) -> IntArray:
        """Return the page-groups that ranges of these lengths (default: their own) need, [ranges].

        As in vAttention, this is not cut at what a dense range can map.
        """
        lengths = self.length if lengths is None else lengths
        return rules.needed(lengths, self.pages.page_tokens)

    @property
    def cached(self) -> int:
        """Page-groups that only idle ranges have mapped."""
        return int(self.pages.count[self.length == 0].sum())

    @property
    def available(self) -> int:
        """Page-groups that may be promised: free ones and all excess, but what is promised."""
        return len(self.pages.free) + int((self.pages.count - self.needed()).sum())

    def has(self, page_groups: int) -> bool:
        """Say whether so many may be promised."""
        pages = self.pages
        least = rules.surely_left(pages.num_pages, self.length, pages.page_tokens)
        return page_groups <= least or page_groups <= self.available

    def lacking(self) -> IntArray:
        """Return how many page-groups each range needs and has not mapped, [ranges]."""
        return np.maximum(self.needed() - self.pages.count, 0)

    # -- taking a range ----------------------------------------------------------------------
    def acquire(self, tokens: int) -> int:
        """Take an idle range to hold `tokens` and return it; nothing is mapped or unmapped.

        It is the first, or if that suffices the one with the fewest page-groups that do
        (alloc_new_batch_idx: a first one that does not suffice is never replaced).
        """
        idle = (self.length == 0).nonzero()[0]
        kept, need = self.pages.count[idle], -(-tokens // self.pages.page_tokens)
        best = 0
        if kept[0] > need:
            kept[kept < need] = kept[0]
            best = kept.argmin()
        vrange = int(idle[best])
        self._let(vrange, tokens)
        return vrange

    def acquire_empty(self, tokens: int) -> tuple[int, IntArray]:
        """Take the idle range that has the fewest mapped, and unmap those; return both."""
        idle = np.flatnonzero(self.length == 0)
        vrange = int(idle[np.argmin(self.pages.count[idle])])
        unmaps = self.drop(vrange, 0)
        self._let(vrange, tokens)
        return vrange, unmaps

    def open(self, tokens: int, found: IntArray) -> tuple[int, Grant]:
        """Take a range for `tokens`, which begin with the page-groups `found` (none here)."""
        return self.acquire(tokens), EMPTY_GRANT

    def cut(self, vrange: int, tokens: int) -> None:
        """Let a live range hold so many tokens less; what it has mapped stays."""
        self.length[vrange] -= tokens
        self.told[vrange] = min(self.told[vrange], self.length[vrange])

    def _let(self, vrange: int, tokens: int) -> None:
        self.length[vrange] = self.told[vrange] = tokens

    def cached_of(self, pages: IntArray) -> int:
        """Count those of a prefix hit that are cached."""
        return 0

    # -- mapping -----------------------------------------------------------------------------
    def extend(self, ranges: IntArray, page_groups: IntArray) -> IntArray:
        """Map page-groups behind what the ranges have, but none behind a range's end."""
        room = self.pages.table.shape[1] - self.pages.count[ranges]
        return self.pages.extend(ranges, np.minimum(page_groups, room))

    def settle(self, ranges: IntArray) -> list[Grant]:
        """Map what is promised to these ranges, one after the other; excess makes room."""
        lack = self.lacking()[ranges]
        ranges, lack = ranges[lack > 0], lack[lack > 0]
        if int(lack.sum()) <= len(self.pages.free):
            return [Grant(maps=self.extend(ranges, lack))] if len(ranges) else []
        return [self._map(at, self.length) for at in ranges.tolist()]

    def settle_all(self) -> list[Grant]:
        """Tell all ranges how long they are, then map what is promised (step_async)."""
        self.told[:] = self.length
        return self.settle(np.arange(len(self.length)))

    def settle_in_order(self, gives_back: bool) -> list[Grant]:
        """Tell range by range how long it is, and map what it lacks (step_sync).

        An idle one gives back all that it has, if it `gives_back`.  A range that has not been told
        yet may lose what it is about to need, and maps it again in its turn.
        """
        kept = (self.length == 0) & (self.pages.count > 0) if gives_back else self.length < 0
        if not (kept | (self.lacking() > 0)).any():
            self.told[:] = self.length
            return []
        steps = []
        for vrange, length in enumerate(self.length.tolist()):
            self.told[vrange] = length
            if kept[vrange]:
                steps.append(Grant(unmaps=self.drop(vrange, 0)))
            elif length > self.pages.count[vrange] * self.pages.page_tokens:
                steps.append(self._map(vrange, self.told))
        return steps

    def _map(self, vrange: int, lengths: IntArray) -> Grant:
        """Map what one range lacks, with excess beyond these lengths where nothing is free."""
        at = np.array([vrange])
        lack = self.lacking()[at]
        unmaps = self.reclaim(int(lack[0]), lengths)
        return Grant(unmaps=unmaps, maps=self.extend(at, lack))

    # -- giving back -------------------------------------------------------------------------
    def retire(self, vrange: int) -> IntArray:
        """Make a range idle; it keeps what it has mapped, up to a page-group that others share."""
        self._let(vrange, 0)
        pages = self.pages
        shared = pages.ref[pages.table[vrange, : pages.count[vrange]]] > 1
        return self.drop(vrange, int(shared.argmax())) if np.count_nonzero(shared) else NO_MAPS

    def reclaim(self, wanted: int, lengths: IntArray | None = None) -> IntArray:
        """Unmap excess until `wanted` are free or none is left: whole excess, last range first.

        What live ranges have mapped ahead is not spared (reclaim_kvblocks_on_demand).  Excess is
        what lies beyond these `lengths` (default: their own).
        """
        return self._take_excess(self.needed(lengths), wanted)

    def reclaim_idle(self, wanted: int) -> IntArray:
        """The same, but live ranges keep what they have."""
        return self._take_excess(np.where(self.length == 0, 0, self.pages.count), wanted)

    def _take_excess(self, needed: IntArray, wanted: int) -> IntArray:
        unmaps = [NO_MAPS]
        if wanted > len(self.pages.free):
            for vrange in np.flatnonzero(self.pages.count > needed)[::-1].tolist():
                unmaps.append(self.drop(vrange, int(needed[vrange])))
                if wanted <= len(self.pages.free):
                    break
        return np.concatenate(unmaps) if len(unmaps) > 1 else NO_MAPS

    def drop(self, vrange: int, keep: int) -> IntArray:
        """Unmap what a range has behind its first `keep` page-groups; return the unmaps."""
        count = int(self.pages.count[vrange])
        if count <= keep:
            return NO_MAPS
        pages = self.pages.drop(vrange, keep)
        column = np.arange(count - 1, keep - 1, -1)
        return np.column_stack([np.full(count - keep, vrange), column, pages])

    # -- an idle range kept ready ------------------------------------------------------------
    def next_idle(self) -> int:
        """Return the range that an admission takes next, if nothing changes; -1: none is idle."""
        idle = np.flatnonzero(self.length == 0)
        return int(idle[0]) if len(idle) else -1

    def unprepared(self) -> IntArray:
        """Return the idle range to map a page-group into, so that one is kept ready, [0 or 1]."""
        vrange = self.next_idle()
        empty = vrange >= 0 and self.pages.count[vrange] == 0
        return np.array([vrange]) if empty else NO_PAGES

    # -- checks ------------------------------------------------------------------------------
    def check(self, live: IntArray, lengths: IntArray) -> None:
        """Assert that each range is idle or held by one sequence, of the length it is to hold."""
        assert len(set(live.tolist())) == len(live), "two sequences hold one range"
        expected = np.zeros_like(self.length)
        expected[live] = lengths
        assert (self.length == expected).all(), "a range is not as long as its sequence"
        assert self.available >= 0, "more page-groups are promised than there are"
        least = rules.surely_left(self.pages.num_pages, self.length, self.pages.page_tokens)
        assert least <= self.available, "fewer page-groups are left than there are at least"
        self._check_kept()

    def _check_kept(self) -> None:
        idle = self.pages.table[self.length == 0]
        assert (self.pages.ref[idle[idle >= 0]] == 1).all(), "idle and shared"
