"""Request slots of the virtual allocator: which are idle, and the page-groups they keep mapped."""

from __future__ import annotations

import numpy as np

from allocators.base import NO_MAPS, Grant, IntArray
from allocators.page_table import PageTable


class Slots:
    """Idle slots, longest idle first; `cached` counts the page-groups they keep."""

    def __init__(self, pages: PageTable) -> None:
        self._pages = pages
        self.idle: dict[int, None] = dict.fromkeys(range(len(pages.count)))
        self.cached = 0

    def acquire(self, need: int) -> tuple[int, IntArray]:
        """Take the idle slot that best suits `need` page-groups; return it and what is unmapped.

        Best is the one with the most page-groups that are all needed; failing that, the one with
        the fewest, whose excess is unmapped.
        """
        idle = np.fromiter(self.idle, dtype=np.int64, count=len(self.idle))
        kept = self._pages.count[idle]
        suited = np.where(kept <= need, kept, -1)
        best = int(np.argmax(suited)) if suited.max() >= 0 else int(np.argmin(kept))
        slot = int(idle[best])
        del self.idle[slot]
        self.cached -= int(kept[best])
        return slot, self.drop(slot, keep=need)

    def open(self, need: int, found: IntArray) -> tuple[int, Grant]:
        """Take a slot for `need` page-groups, the first of which are a prefix hit (never here)."""
        slot, unmaps = self.acquire(need)
        return slot, Grant(unmaps=unmaps)

    def cached_of(self, pages: IntArray) -> int:
        """Count those of a prefix hit that are cached."""
        return 0

    def left(self, pages: IntArray) -> None:
        """Note that busy slots have given up these page-groups, other than by `drop`."""

    def retire(self, slot: int, keep_mapped: bool) -> IntArray:
        """Make a slot idle; it keeps its leading unshared page-groups if `keep_mapped`."""
        count, keep = int(self._pages.count[slot]), 0
        if keep_mapped:
            shared = np.flatnonzero(self._pages.ref[self._pages.table[slot, :count]] > 1)
            keep = int(shared[0]) if len(shared) else count
        unmaps = self.drop(slot, keep)
        self.idle[slot] = None
        self.cached += keep
        return unmaps

    def reclaim(self, wanted: int) -> IntArray:
        """Unmap page-groups of idle slots, longest idle first, until `wanted` are free."""
        short = wanted - len(self._pages.free)
        if short <= 0:
            return NO_MAPS
        unmaps = []
        for slot in self.idle:
            kept = int(self._pages.count[slot])
            if kept:
                taken = min(kept, short)
                unmaps.append(self.drop(slot, kept - taken))
                self.cached -= taken
                short -= taken
                if not short:
                    break
        assert not short, "the caller checks that enough is free or cached"
        return np.concatenate(unmaps)

    def prepare_one(self) -> IntArray:
        """Map one page-group into an idle slot if none has any and one is free (eager mapping)."""
        if self.cached or not self.idle or not len(self._pages.free):
            return NO_MAPS
        slot = np.array([next(iter(self.idle))])
        one, none = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        self.cached += 1
        return self._pages.extend(slot, one, none)

    def drop(self, slot: int, keep: int) -> IntArray:
        """Unmap what a slot holds behind its first `keep` page-groups; return the unmaps."""
        count = int(self._pages.count[slot])
        if count <= keep:
            return NO_MAPS
        pages = self._pages.drop(slot, keep)
        column = np.arange(count - 1, keep - 1, -1)
        return np.column_stack([np.full(count - keep, slot), column, pages])

    def check(self, busy: IntArray) -> None:
        """Assert that each slot is idle or held by one sequence, and `cached` is what is kept."""
        assert len(set(busy.tolist())) == len(busy), "two sequences hold one slot"
        assert set(busy.tolist()).isdisjoint(self.idle), "a held slot is idle"
        assert len(busy) + len(self.idle) == len(self._pages.count), "a slot is lost"
        self._check_kept()

    def _check_kept(self) -> None:
        kept = 0
        for slot in self.idle:
            count = int(self._pages.count[slot])
            kept += count
            assert (self._pages.ref[self._pages.table[slot, :count]] == 1).all(), "idle and shared"
        assert kept == self.cached, "cached page-groups are miscounted"
