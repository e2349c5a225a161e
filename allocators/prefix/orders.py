"""Eviction orders over cached pages: first in first out, and least frequently used."""

from __future__ import annotations

import abc
from heapq import heappop, heappush

from allocators.prefix.pool import Order, drop_stale


class _HeapOrder(Order):
    """Cached pages in a heap of (*rank, page); an entry whose page has moved on is skipped."""

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._heap: list[tuple[int, ...]] = []
        self._clock = 0

    @abc.abstractmethod
    def _rank(self, page: int) -> tuple[int, ...]:
        """Return what orders this page among the cached ones; the least gives way first."""

    def freed(self, pages: list[int]) -> None:
        for page in pages:
            heappush(self._heap, (*self._rank(page), page))
        drop_stale(self._heap, len(self.free), self._is_current)

    def victims(self, n: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < n:
            entry = heappop(self._heap)
            if self._is_current(entry):
                chosen.append(entry[-1])
                self.free[entry[-1]] = False
        return chosen

    def _is_current(self, entry: tuple[int, ...]) -> bool:
        return bool(self.free[entry[-1]]) and entry[:-1] == self._rank(entry[-1])

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


class FifoOrder(_HeapOrder):
    """The page that got its key first goes first, however often it was hit."""

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._born = [0] * num_pages

    def inserted(self, pages: list[int], keys: list[int]) -> None:
        for page in pages:
            self._born[page] = self._tick()

    def _rank(self, page: int) -> tuple[int, ...]:
        return (self._born[page],)


class LfuOrder(_HeapOrder):
    """The page with the fewest hits since it got its key; of equals, the one freed first."""

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._hits = [0] * num_pages
        self._freed = [0] * num_pages

    def inserted(self, pages: list[int], keys: list[int]) -> None:
        for page in pages:
            self._hits[page] = 0

    def hit(self, pages: list[int]) -> None:
        for page in pages:
            self._hits[page] += 1

    def freed(self, pages: list[int]) -> None:
        for page in pages:
            self._freed[page] = self._tick()
        super().freed(pages)

    def _rank(self, page: int) -> tuple[int, ...]:
        return self._hits[page], self._freed[page]
