"""S3-FIFO: three first-in first-out queues (Yang et al., SOSP 2023, algorithm 1).

A new page enters the small queue, or the main one if its key was evicted from the small queue
lately (the ghost queue remembers).  A page that leaves the small queue goes to the main one if it
was hit more than once, and is evicted otherwise.  One that comes to the end of the main queue goes
round again if it was hit, which costs it one hit.

What the paper does not have is pages that are held: they keep their place, and are passed over.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from heapq import heappop, heappush
from typing import ClassVar

from allocators.prefix.pool import Order, drop_stale

#: share of the pool that the small queue is let grow to
SMALL_SHARE = 0.1
#: hits are counted up to here
MOST_HITS = 3


class S3FifoOrder(Order):
    """Queues are heaps of (place, page) with the pages that are free; `_size` counts all."""

    # The length of the small queue, held pages included, decides which queue evicts.
    insertion_sensitive: ClassVar[bool] = True

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._small_target = max(1, int(SMALL_SHARE * num_pages))
        self._most_ghosts = num_pages - self._small_target
        self._heaps: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._size = [0, 0]
        self._main = [0] * num_pages  # which queue a page is in: 0 small, 1 main
        self._place = [0] * num_pages
        self._hits = [0] * num_pages
        self._key = [0] * num_pages
        # A plain dict is slow to find its first entry once many before it have been deleted.
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._clock = 0

    def inserted(self, pages: list[int], keys: list[int]) -> None:
        for page, key in zip(pages, keys, strict=True):
            self._key[page], self._hits[page] = key, 0
            was_ghost = key in self._ghosts
            if was_ghost:
                del self._ghosts[key]
            self._enter(page, int(was_ghost))

    def hit(self, pages: list[int]) -> None:
        for page in pages:
            self._hits[page] = min(self._hits[page] + 1, MOST_HITS)

    def freed(self, pages: list[int]) -> None:
        for page in pages:
            heappush(self._heaps[self._main[page]], (self._place[page], page))
        for queue, heap in enumerate(self._heaps):
            drop_stale(heap, len(self.free), partial(self._is_current, queue))

    def unkeyed(self, pages: list[int]) -> None:
        for page in pages:
            self._leave(page)

    def victims(self, n: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < n:
            small, main = self._head(0), self._head(1)
            if small is not None and (main is None or self._size[0] >= self._small_target):
                self._end_of_small(small, chosen)
            else:
                assert main is not None, "the caller checks that enough is cached"
                self._end_of_main(main, chosen)
        return chosen

    def _end_of_small(self, page: int, chosen: list[int]) -> None:
        heappop(self._heaps[0])
        self._leave(page)
        if self._hits[page] > 1:
            self._hits[page] = 0
            self._enter(page, 1)
            heappush(self._heaps[1], (self._place[page], page))
            return
        self._ghosts[self._key[page]] = None
        if len(self._ghosts) > self._most_ghosts:
            self._ghosts.popitem(last=False)
        self._choose(page, chosen)

    def _end_of_main(self, page: int, chosen: list[int]) -> None:
        heappop(self._heaps[1])
        self._leave(page)
        if not self._hits[page]:
            self._choose(page, chosen)
            return
        self._hits[page] -= 1
        self._enter(page, 1)
        heappush(self._heaps[1], (self._place[page], page))

    def _choose(self, page: int, chosen: list[int]) -> None:
        chosen.append(page)
        self.free[page] = False

    def _enter(self, page: int, queue: int) -> None:
        self._clock += 1
        self._main[page], self._place[page] = queue, self._clock
        self._size[queue] += 1

    def _leave(self, page: int) -> None:
        self._size[self._main[page]] -= 1

    def _head(self, queue: int) -> int | None:
        """Return the page that has been in a queue for longest and is free; drop stale entries."""
        heap = self._heaps[queue]
        while heap and not self._is_current(queue, heap[0]):
            heappop(heap)
        return heap[0][1] if heap else None

    def _is_current(self, queue: int, entry: tuple[int, int]) -> bool:
        place, page = entry
        here = self._main[page] == queue and self._place[page] == place
        return here and bool(self.free[page])
