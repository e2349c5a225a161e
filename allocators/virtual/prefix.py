"""Prefix sharing of the virtual allocator: page-groups of one prefix in several virtual ranges.

A page-group keeps its key as long as some range has it mapped, be that busy or idle.

    range 3 (idle)   [ 7 | 2 | 9 | - ]     7 and 2 are held by a live sequence too: they are active
    range 5 (busy)   [ 7 | 2 | 4 | - ]     9 is mapped by idle ranges only: it is cached

An idle range that is hit gives its page-groups to be mapped a second time and keeps them itself; to
reclaim one unmaps it from idle ranges only.  The rules are stated in docs/prefix.md.
"""

from __future__ import annotations

import numpy as np

from allocators.base import NO_MAPS, Grant, IntArray, Unsupported, one_of
from allocators.page_table import NO_PAGES, FreeQueue, PageTable
from allocators.prefix.hash_index import HashIndex
from allocators.prefix.index import NullIndex, PrefixIndex
from allocators.prefix.pool import BlockPool
from allocators.virtual.ranges import Ranges

INDEXES = ("none", "hash")


def attach(pages: PageTable, prefix_index: str, sharing: str) -> tuple[PrefixIndex, Ranges]:
    """Return the index `prefix_index` over `pages`, and the virtual ranges that belong to it.

    Raises ValueError for an unknown name, Unsupported for an index where nothing may be aliased.
    """
    one_of("prefix_index", prefix_index, INDEXES)
    if prefix_index == "none":
        return NullIndex(), Ranges(pages)
    if sharing == "copy":
        raise Unsupported(
            "prefix_index=hash maps a page-group into several ranges, which sharing=copy rules "
            "out: use sharing=alias"
        )
    pool = BlankPool(pages.num_pages)
    return HashIndex(pages, pool), PrefixRanges(pages, pool)


class BlankPool(BlockPool):
    """Free page-groups are mapped nowhere and hold nothing: one that is given back is evicted."""

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._free = FreeQueue(num_pages)

    def __len__(self) -> int:
        return len(self._free)

    def before_eviction(self) -> int:
        return len(self._free)

    def _take(self, n: int) -> tuple[IntArray, np.ndarray]:
        return self._free.take(n), np.zeros(n, dtype=bool)

    def give(self, pages: IntArray) -> None:
        self.forget(pages)
        self._free.give(pages)

    def remove(self, pages: IntArray) -> None:
        assert not len(pages), "a free page-group cannot be hit"

    def pages(self) -> IntArray:
        return self._free.pages()

    def forget(self, pages: IntArray) -> None:
        """Take their keys from pages that are unmapped or will be overwritten."""
        lost = pages[self.keyed[pages]]
        if len(lost):
            self.keyed[lost] = False
            self.evictions += len(lost)
            self.on_evict(lost.tolist())


class PrefixRanges(Ranges):
    """Idle ranges that may share what they keep, with each other and with live ones.

    They are let and reclaimed by what is lost with them, longest idle first: vAttention has no
    rules for that.  `cached` counts the page-groups that only idle ranges have mapped, each once.
    """

    def __init__(self, pages: PageTable, pool: BlankPool) -> None:
        super().__init__(pages)
        self._pool = pool
        self._idle: dict[int, None] = dict.fromkeys(range(len(pages.count)))  # longest idle first
        self._idle_ref = np.zeros(pages.num_pages, dtype=np.int64)  # how many idle ranges map it

    @property
    def cached(self) -> int:
        return int(np.count_nonzero(self._only_idle()))

    @property
    def available(self) -> int:
        live = self.length > 0
        excess = (self.pages.count - self.needed())[live]
        return len(self.pages.free) + self.cached + int(excess.sum())

    def cached_of(self, pages: IntArray) -> int:
        return int(np.count_nonzero(self._only_idle()[pages]))

    # -- taking a range ------------------------------------------------------------------------
    def acquire_empty(self, tokens: int) -> tuple[int, IntArray]:
        vrange, grant = self._take(0, NO_PAGES)
        self._let(vrange, tokens)
        return vrange, grant.unmaps

    def open(self, tokens: int, found: IntArray) -> tuple[int, Grant]:
        vrange, grant = self._take(-(-tokens // self.pages.page_tokens), found)
        self._let(vrange, tokens)
        return vrange, grant

    def _take(self, need: int, found: IntArray) -> tuple[int, Grant]:
        """Take an idle range for `need` page-groups, the first of which are `found`; map those.

        It is the range that loses no prefix and takes the fewest map operations, or, if each would
        lose one, the range that has been idle for longest.
        """
        pages = self.pages
        pages.ref[found] += 1  # so that none of the hit is given up while the range is cleared
        vrange, kept = self._choose(need, found)
        del self._idle[vrange]
        hit, n = min(kept, len(found)), len(found)
        self._idle_ref[pages.table[vrange, : int(pages.count[vrange])]] -= 1
        unmaps = super().drop(vrange, kept)
        pages.ref[found[:hit]] -= 1  # these the range held already
        maps = NO_MAPS
        if hit < n:
            column = np.arange(hit, n)
            pages.table[vrange, column] = found[hit:]
            pages.count[vrange] = n
            maps = np.column_stack([np.full(n - hit, vrange), column, found[hit:]])
        self._pool.forget(pages.table[vrange, n:kept])
        return vrange, Grant(unmaps=unmaps, maps=maps)

    def _choose(self, need: int, found: IntArray) -> tuple[int, int]:
        """Return the range to take and how many of its leading page-groups may stay mapped.

        Those are the ones of the hit, and behind a complete hit those that nobody else has mapped,
        which are excess as far as they are not needed; with nothing needed (`acquire_empty`) none.
        """
        pages = self.pages
        idle = self._idle_ranges()
        counts = pages.count[idle]
        width = int(counts.max())
        column = np.arange(width)
        held = pages.table[idle, :width]
        mapped, alone = held >= 0, pages.ref[held] == 1  # none of the hit is anybody's alone now
        in_place = mapped & alone & (column >= len(found)) & (need > 0)
        n = min(width, len(found))
        in_place[:, :n] = held[:, :n] == found[:n]
        kept = np.cumprod(in_place, axis=1).sum(axis=1)
        lossless = ~(mapped & alone & self._pool.keyed[held]).any(axis=1)
        if not lossless.any():
            return int(idle[0]), int(kept[0])
        operations = counts - kept + np.maximum(need - kept, 0)
        operations[~lossless] = np.iinfo(np.int64).max
        best = int(np.argmin(operations))
        return int(idle[best]), int(kept[best])

    # -- mapping -------------------------------------------------------------------------------
    def extend(self, ranges: IntArray, page_groups: IntArray) -> IntArray:
        maps = super().extend(ranges, page_groups)
        self._idle_ref[maps[self.length[maps[:, 0]] == 0, 2]] = 1
        return maps

    # -- giving it back ------------------------------------------------------------------------
    def retire(self, vrange: int) -> IntArray:
        """Make a range idle; it keeps what leads up to a shared page-group without a key.

        Such a one may yet be written by those who share it.
        """
        pages = self.pages
        held = pages.table[vrange, : int(pages.count[vrange])].copy()
        written = np.flatnonzero((pages.ref[held] > 1) & ~self._pool.keyed[held])
        keep = int(written[0]) if len(written) else len(held)
        unmaps = super().drop(vrange, keep)
        self._let(vrange, 0)
        self._idle_ref[held[:keep]] += 1
        self._idle[vrange] = None
        return unmaps

    def reclaim(self, wanted: int, lengths: IntArray | None = None) -> IntArray:
        """Unmap page-groups of idle ranges, then what live ones have mapped ahead."""
        unmaps = self.reclaim_idle(wanted)
        if wanted <= len(self.pages.free):
            return unmaps
        # What idle ranges still have is live elsewhere: to unmap it would free nothing.
        needed = np.where(self.length == 0, self.pages.count, self.needed(lengths))
        return np.concatenate([unmaps, self._take_excess(needed, wanted)])

    def reclaim_idle(self, wanted: int) -> IntArray:
        """Unmap page-groups of idle ranges, longest idle first, until `wanted` are free.

        Of a range the deepest go first, down to the first that no live sequence holds.
        """
        pages = self.pages
        if wanted <= len(pages.free):
            return NO_MAPS
        idle = self._idle_ranges()
        held = pages.table[idle]
        spare = (held >= 0) & self._only_idle()[held]
        unmaps = [NO_MAPS]
        for at in np.flatnonzero(spare.any(axis=1)).tolist():
            vrange, first = int(idle[at]), int(np.argmax(spare[at]))
            count, short = int(pages.count[vrange]), wanted - len(pages.free)
            freed = np.cumsum(pages.ref[held[at, :count][::-1]] == 1)
            keep = max(first, count - 1 - int(np.searchsorted(freed, short)))
            unmaps.append(self.drop(vrange, keep))
            if wanted <= len(pages.free):
                break
        return np.concatenate(unmaps)

    def drop(self, vrange: int, keep: int) -> IntArray:
        if vrange in self._idle:
            self._idle_ref[self.pages.table[vrange, keep : int(self.pages.count[vrange])]] -= 1
        return super().drop(vrange, keep)

    def _idle_ranges(self) -> IntArray:
        return np.fromiter(self._idle, dtype=np.int64, count=len(self._idle))

    def _only_idle(self) -> np.ndarray:
        return (self._idle_ref > 0) & (self._idle_ref == self.pages.ref)

    # -- an idle range kept ready --------------------------------------------------------------
    def unprepared(self) -> IntArray:
        """Return an empty idle range, unless one begins with a blank page-group, [0 or 1]."""
        pages = self.pages
        idle = self._idle_ranges()
        first = pages.table[idle, 0]
        blank = (first >= 0) & (pages.ref[first] == 1) & ~self._pool.keyed[first]
        return NO_PAGES if blank.any() else idle[first < 0][:1]

    # -- checks --------------------------------------------------------------------------------
    def _check_kept(self) -> None:
        pages = self.pages
        assert set(self._idle) == set(np.flatnonzero(self.length == 0).tolist()), "not idle"
        idle = self._idle_ranges()
        held = pages.table[idle][pages.table[idle] >= 0]
        counted = np.bincount(held, minlength=pages.num_pages)
        assert (counted == self._idle_ref).all(), "page-groups of idle ranges are miscounted"
        keyed = self._pool.keyed
        assert (pages.ref[keyed] > 0).all(), "a page-group that is mapped nowhere has a key"
