"""Large pages whose small ones keep the keys of a prefix until they are used for something else.

Follows Jenga (Zhang et al., SOSP 2025, arXiv 2503.18292, section 5).  A small page that nobody
holds and that has a key is *cached*.  It was read last when it was given back: in a layer group
that keeps every token when its last sequence ended, in one with a window when it fell behind.  So
each layer group gives up first what it has not read for longest (balanced eviction), and of what
was read last at the same time all give up the deepest first (aligned eviction), since a hit needs
all of them.

    large page 7, sliding    [ held  | cached | held  | blank  ]    its cached page: last choice
    large page 8, sliding    [ blank | cached | cached | cached]    idle: evicted as one
    large page 9             free

A large page is *idle* if none of its small ones is held and some are cached.  It is worth as much
as the one of them that would be evicted last.  A small page is taken from a large page that the
same sequence has begun, else from a free large page, else from the idle one that is worth least,
else from what others have left blank, else in place of the cached page that is worth least.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np

from allocators.base import IntArray
from allocators.layered.jenga_pools import LargePages
from allocators.layered.pools import CachingPools
from allocators.prefix.pool import drop_stale

#: when a page was given back, how deep it ends (negative), and its number: the least goes first
Rank = tuple[int, int, int]


class CachedLargePages(LargePages, CachingPools):
    """Idle large pages are free for any layer group; cached small ones are spare in their own."""

    def __init__(self, pool_bytes: int, page_bytes: list[int], request_aware: bool = True) -> None:
        super().__init__(pool_bytes, page_bytes, request_aware)
        self._keyed = np.zeros(self.num_pages, dtype=bool)
        self._end = np.zeros(self.num_pages, dtype=np.int64)
        self._evictions = self._clock = 0
        self._forget: Callable[[list[int]], None] = lambda pages: None
        #: what each cached page is worth, and how many each table has
        self._rank: dict[int, Rank] = {}
        self.cached = [0] * len(page_bytes)
        # Of each table, the cached pages of each large page.  Of idle large pages: the table, the
        # blank small ones, and what it is worth.  Heaps keep entries that are no longer true.
        self._kept: list[dict[int, set[int]]] = [{} for _ in page_bytes]
        self._idle: dict[int, tuple[int, list[int]]] = {}
        self._worth: dict[int, Rank] = {}
        self._small_heaps: list[list[Rank]] = [[] for _ in page_bytes]
        self._large_heap: list[Rank] = []
        # Of the large pages that were taken last, in order: the keys that each table lost for it.
        self._lost = np.zeros((1, len(page_bytes)), dtype=np.int64)

    # -- keys --------------------------------------------------------------------------------
    @property
    def evictions(self) -> int:
        return self._evictions

    def on_evict(self, forget: Callable[[list[int]], None]) -> None:
        self._forget = forget

    def keyed(self, pages: IntArray) -> np.ndarray:
        return self._keyed[pages]

    def name(self, pages: IntArray, ends: IntArray) -> None:
        self._keyed[pages], self._end[pages] = True, ends

    def unname(self, pages: IntArray) -> None:
        self._keyed[pages] = False

    # -- how much there is -------------------------------------------------------------------
    @property
    def num_free(self) -> int:
        return len(self.large) + len(self._idle)

    def vacant(self, table: int, large: int) -> int:
        return super().vacant(table, large) + len(self._kept[table].get(large, ()))

    def fits_beside(self, pages: IntArray, hit: list[IntArray], leave: IntArray | int = 0) -> bool:
        """A hit makes the rest of an idle large page spare; remembers what it was asked for."""
        self.due = pages.tolist()
        spare, free = list(self.spare), self.num_free
        for table, held in enumerate(hit):
            large = (held - self._first[table]) // self.per_large[table]
            spare[table] -= len(large)
            woken = sum(page in self._idle for page in np.unique(large).tolist())
            spare[table] += woken * self.per_large[table]
            free -= woken
        return self.large_needed(self.due, spare) + int(np.max(leave)) <= free

    def quiet(self, pages: IntArray) -> bool:
        """Large pages alone: `cached_before` asks which keys each of them cost."""
        return self._takes_whole(pages)

    # -- taking ------------------------------------------------------------------------------
    def _take_large(self, n: int) -> IntArray:
        blank = self.large.take(min(n, len(self.large)))
        self._lost = np.zeros((n, len(self.cached)), dtype=np.int64)
        evicted = np.zeros(n - len(blank), dtype=np.int64)
        for at in range(len(evicted)):
            before = np.array(self.cached)
            evicted[at] = self._evict_large()
            self._lost[len(blank) + at] = before - self.cached
        return np.concatenate([blank, evicted])

    def _evict_large(self) -> int:
        rank = heappop(self._large_heap)
        while self._worth.get(rank[2]) != rank:
            rank = heappop(self._large_heap)
        large = rank[2]
        table, _ = self._idle.pop(large)
        del self._worth[large]
        self._lose(table, self._kept[table].pop(large))
        return large

    def _others(self, table: int) -> int:
        """Evict a small page where nothing is left blank."""
        if not self._holes[table]:
            heap = self._small_heaps[table]
            rank = heappop(heap)
            while not self._is_spare(table, rank):
                rank = heappop(heap)
            large, small = divmod(rank[2] - int(self._first[table]), self.per_large[table])
            self._drop_kept(table, large, rank[2])
            self._lose(table, {rank[2]})
            self._leave(table, large, small)
        return super()._others(table)

    def _is_spare(self, table: int, rank: Rank) -> bool:
        """Say whether an entry is true of a cached page in a large page that is in use."""
        large = (rank[2] - int(self._first[table])) // self.per_large[table]
        return self._rank.get(rank[2]) == rank and large not in self._idle

    def _lose(self, table: int, pages: set[int]) -> None:
        """Let cached pages lose their keys."""
        for page in pages:
            del self._rank[page]
        lost = sorted(pages)
        self.cached[table] -= len(lost)
        self._keyed[lost] = False
        self._evictions += len(lost)
        self._forget(lost)

    def _drop_kept(self, table: int, large: int, page: int) -> None:
        kept = self._kept[table][large]
        kept.remove(page)
        if not kept:
            del self._kept[table][large]

    # -- giving ------------------------------------------------------------------------------
    def give(self, tables: IntArray, pages: IntArray) -> None:
        self._clock += 1
        blank = ~self._keyed[pages]
        if self._carves(tables):
            super().give(tables, pages)
        else:
            super().give(tables[blank], pages[blank])
            for table, page in zip(tables[~blank].tolist(), pages[~blank].tolist(), strict=True):
                self._give(table, page - int(self._first[table]))
        drop_stale(self._large_heap, self.num_large, lambda e: self._worth.get(e[2]) == e)
        for table in set(tables.tolist()):
            size = int(self._sizes[table])
            drop_stale(self._small_heaps[table], size, lambda e, t=table: self._is_spare(t, e))

    def _leave(self, table: int, large: int, small: int) -> None:
        page = int(self._first[table]) + large * self.per_large[table] + small
        if not self._keyed[page]:
            super()._leave(table, large, small)
            return
        rank = (self._clock, -int(self._end[page]), page)
        self._rank[page] = rank
        self.cached[table] += 1
        self._kept[table].setdefault(large, set()).add(page)
        if not self._is_whole(table, large):
            heappush(self._small_heaps[table], rank)

    def _close(self, table: int, large: int) -> bool:
        """A large page with cached pages is idle, not free."""
        blank = list(self._holes[table].get(large, ()))
        super()._close(table, large)
        kept = self._kept[table].get(large)
        if not kept:
            return True
        last = max(self._rank[page] for page in kept)
        self._idle[large] = (table, blank)
        self._worth[large] = (last[0], last[1], large)
        heappush(self._large_heap, self._worth[large])
        return False

    def remove(self, pages: IntArray) -> None:
        tables = np.searchsorted(self._first, pages, side="right") - 1
        for table, page in zip(tables.tolist(), pages.tolist(), strict=True):
            n = self.per_large[table]
            large = (page - int(self._first[table])) // n
            del self._rank[page]
            self.cached[table] -= 1
            self._drop_kept(table, large, page)
            self.used[table] += 1
            self.spare[table] -= 1
            if large in self._idle:
                _, blank = self._idle.pop(large)
                del self._worth[large]
                self.spare[table] += n
                if blank:
                    self._holes[table][large] = blank
                for kept in self._kept[table].get(large, ()):
                    heappush(self._small_heaps[table], self._rank[kept])

    # -- views -------------------------------------------------------------------------------
    def cached_before(self, taken: IntArray) -> IntArray:
        """The last pages taken over several steps were large ones (`quiet`)."""
        lost = np.cumsum(
            np.vstack([np.zeros(len(self.cached), dtype=np.int64), self._lost[::-1]]), axis=0
        )
        return self.cached + lost[np.minimum(taken.sum(axis=1), len(lost) - 1)]

    def check(self, ref: IntArray) -> None:
        super().check(ref)
        cached = np.array(sorted(self._rank), dtype=np.int64)
        assert self._keyed[cached].all(), "a cached page has no key"
        assert not self._keyed[(ref == 0) & ~np.isin(np.arange(len(ref)), cached)].any()
        kept = [page for of in self._kept for pages in of.values() for page in pages]
        assert sorted(kept) == cached.tolist(), "cached pages are lost"
        assert sum(self.cached) == len(cached), "cached pages are miscounted"
        for large, (table, blank) in self._idle.items():
            assert len(blank) + len(self._kept[table][large]) == self.per_large[table]
        true = [rank for table, heap in enumerate(self._small_heaps) for rank in heap]
        assert {*self._rank.values()} <= {*true, *self._in_idle()}, "a page is never evicted"
        assert {*self._worth.values()} <= {*self._large_heap}, "a large page is never evicted"

    def _in_idle(self) -> list[Rank]:
        pages = [p for large, (table, _) in self._idle.items() for p in self._kept[table][large]]
        return [self._rank[page] for page in pages]

    def _vacant_pages(self, table: int) -> dict[int, list[int]]:
        n, first = self.per_large[table], int(self._first[table])
        found = {large: list(blank) for large, blank in self._holes[table].items()}
        for large, kept in self._kept[table].items():
            if large not in self._idle:
                found.setdefault(large, []).extend((page - first) % n for page in kept)
        return found

    def _free_large(self) -> IntArray:
        return np.concatenate([super()._free_large(), np.array(list(self._idle), dtype=np.int64)])
