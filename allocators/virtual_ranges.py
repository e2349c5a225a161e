"""Virtual ranges of the virtual allocator: which are idle, and the page-groups they keep mapped."""

from __future__ import annotations

import numpy as np

from allocators.base import NO_MAPS, Grant, IntArray
from allocators.page_table import PageTable


class Ranges:
    """Idle ranges, longest idle first; `cached` counts the page-groups they keep."""

    def __init__(self, pages: PageTable) -> None:
        self._pages = pages
        self.idle: dict[int, None] = dict.fromkeys(range(len(pages.count)))
        self.cached = 0

    def acquire(self, need: int) -> tuple[int, IntArray]:
        """Take the idle range that best suits `need` page-groups; return it and what is unmapped.

        Best is the one with the most page-groups that are all needed; failing that, the one with
        the fewest, whose excess is unmapped.
        """
        idle = np.fromiter(self.idle, dtype=np.int64, count=len(self.idle))
        kept = self._pages.count[idle]
        suited = np.where(kept <= need, kept, -1)
        best = int(np.argmax(suited)) if suited.max() >= 0 else int(np.argmin(kept))
        vrange = int(idle[best])
        del self.idle[vrange]
        self.cached -= int(kept[best])
        return vrange, self.drop(vrange, keep=need)

    def open(self, need: int, found: IntArray) -> tuple[int, Grant]:
        """Take a range for `need` page-groups, the first of which are a prefix hit (never here)."""
        vrange, unmaps = self.acquire(need)
        return vrange, Grant(unmaps=unmaps)

    def cached_of(self, pages: IntArray) -> int:
        """Count those of a prefix hit that are cached."""
        return 0

    def left(self, pages: IntArray) -> None:
        """Note that busy ranges have given up these page-groups, other than by `drop`."""

    def retire(self, vrange: int, keep_mapped: bool) -> IntArray:
        """Make a range idle; it keeps its leading unshared page-groups if `keep_mapped`."""
        count, keep = int(self._pages.count[vrange]), 0
        if keep_mapped:
            shared = np.flatnonzero(self._pages.ref[self._pages.table[vrange, :count]] > 1)
            keep = int(shared[0]) if len(shared) else count
        unmaps = self.drop(vrange, keep)
        self.idle[vrange] = None
        self.cached += keep
        return unmaps

    def reclaim(self, wanted: int) -> IntArray:
        """Unmap page-groups of idle ranges, longest idle first, until `wanted` are free."""
        short = wanted - len(self._pages.free)
        if short <= 0:
            return NO_MAPS
        unmaps = []
        for vrange in self.idle:
            kept = int(self._pages.count[vrange])
            if kept:
                taken = min(kept, short)
                unmaps.append(self.drop(vrange, kept - taken))
                self.cached -= taken
                short -= taken
                if not short:
                    break
        assert not short, "the caller checks that enough is free or cached"
        return np.concatenate(unmaps)

    def prepare_one(self) -> IntArray:
        """Map one page-group into an idle range if none has any and one is free (eager mapping)."""
        if self.cached or not self.idle or not len(self._pages.free):
            return NO_MAPS
        vrange = np.array([next(iter(self.idle))])
        one, none = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        self.cached += 1
        return self._pages.extend(vrange, one, none)

    def drop(self, vrange: int, keep: int) -> IntArray:
        """Unmap what a range holds behind its first `keep` page-groups; return the unmaps."""
        count = int(self._pages.count[vrange])
        if count <= keep:
            return NO_MAPS
        pages = self._pages.drop(vrange, keep)
        column = np.arange(count - 1, keep - 1, -1)
        return np.column_stack([np.full(count - keep, vrange), column, pages])

    def check(self, busy: IntArray) -> None:
        """Assert that each range is idle or held by one sequence, and `cached` is what is kept."""
        assert len(set(busy.tolist())) == len(busy), "two sequences hold one range"
        assert set(busy.tolist()).isdisjoint(self.idle), "a held range is idle"
        assert len(busy) + len(self.idle) == len(self._pages.count), "a range is lost"
        self._check_kept()

    def _check_kept(self) -> None:
        kept = 0
        for vrange in self.idle:
            count = int(self._pages.count[vrange])
            kept += count
            assert (self._pages.ref[self._pages.table[vrange, :count]] == 1).all(), (
                "idle and shared"
            )
        assert kept == self.cached, "cached page-groups are miscounted"
