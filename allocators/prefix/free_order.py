"""The pools of `hash` with `lru`: which free page is used next, as in vLLM's V1 block pool.

Both evict the cached page that has been free for longest and differ in where a page goes that is
given back without a key, such as the partly filled last one of a request:

    by_age             [ oldest ... cached and blank as they came ... latest ]   up to vLLM 0.23
    unkeyed_first      [ blank, latest first | cached, oldest first ]            from vLLM 0.24 on
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from allocators.prefix.lru_queue import LruQueue
from allocators.prefix.pool import BlockPool


class ByAgePool(BlockPool):
    """One queue: what has been free for longest goes first, whether cached or blank."""

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._queue = LruQueue(num_pages)

    def __len__(self) -> int:
        return len(self._queue)

    def before_eviction(self) -> int:
        n = min(64, len(self))
        while True:
            cached = np.flatnonzero(self.keyed[self._queue.first(n)])
            if len(cached):
                return int(cached[0])
            if n == len(self):
                return n
            n = min(4 * n, len(self))

    def _take(self, n: int) -> tuple[IntArray, np.ndarray]:
        pages = self._queue.take(n)
        evicted = self.keyed[pages]
        if evicted.any():
            self._evict(pages[evicted])
        return pages, evicted

    def give(self, pages: IntArray) -> None:
        self._queue.give(pages)
        self.cached += int(np.count_nonzero(self.keyed[pages]))

    def remove(self, pages: IntArray) -> None:
        self._queue.remove(pages)
        self.cached -= len(pages)

    def pages(self) -> IntArray:
        return self._queue.pages()


class UnkeyedFirstPool(BlockPool):
    """Blank pages before any cached one, those of the latest release first."""

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._stack = np.arange(num_pages, dtype=np.int64)[::-1].copy()  # its top is last
        self._blanks = num_pages
        self._queue = LruQueue(num_pages, empty=True)  # the cached ones

    def __len__(self) -> int:
        return self._blanks + len(self._queue)

    def before_eviction(self) -> int:
        return self._blanks

    def _take(self, n: int) -> tuple[IntArray, np.ndarray]:
        blank = min(n, self._blanks)
        pages = self._stack[self._blanks - blank : self._blanks][::-1].copy()
        self._blanks -= blank
        if blank == n:
            return pages, np.zeros(n, dtype=bool)
        evicted = self._queue.take(n - blank)
        self._evict(evicted)
        return np.concatenate([pages, evicted]), np.arange(n) >= blank

    def give(self, pages: IntArray) -> None:
        keyed = self.keyed[pages]
        blank, cached = pages[~keyed], pages[keyed]
        self._stack[self._blanks : self._blanks + len(blank)] = blank[::-1]
        self._blanks += len(blank)
        self._queue.give(cached)
        self.cached += len(cached)

    def remove(self, pages: IntArray) -> None:
        self._queue.remove(pages)
        self.cached -= len(pages)

    def pages(self) -> IntArray:
        return np.concatenate([self._stack[: self._blanks][::-1], self._queue.pages()])
