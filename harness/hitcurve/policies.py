"""Caches of blocks that are simulated request by request: fifo, lfu and s3fifo.

Nothing is pinned: the cache is one that holds blocks for later requests and nothing else.  Each
policy keeps the same sections in the same order (state, hit, insert), so that two are compared
by eye.  `hits` runs all of them: count the leading run, then touch the blocks one by one.

The allocators' eviction orders (`allocators.prefix`) decide alike, as tests check block by block.
They pass over pages that are held, which takes heaps and four to seven times as long.
"""

from __future__ import annotations

import abc
from collections import OrderedDict, deque

from harness.hitcurve.trace import BlockTrace


class Cache(abc.ABC):
    """At most `capacity` blocks; `in` says whether a block is held."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    @abc.abstractmethod
    def __contains__(self, block: int) -> bool: ...

    @abc.abstractmethod
    def hit(self, block: int) -> None:
        """Touch a block that is held."""

    @abc.abstractmethod
    def insert(self, block: int) -> None:
        """Take in a block that is not held; evict another if the cache is full."""


class Fifo(Cache):
    """The block inserted first goes first."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._held: dict[int, None] = {}
        self._queue: deque[int] = deque()

    def __contains__(self, block: int) -> bool:
        return block in self._held

    def hit(self, block: int) -> None:
        pass

    def insert(self, block: int) -> None:
        if len(self._held) == self.capacity:
            del self._held[self._queue.popleft()]
        self._held[block] = None
        self._queue.append(block)


class Lfu(Cache):
    """The block hit least often since its insertion goes first; of equals, the least recent."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._hits: dict[int, int] = {}
        self._with_hits: dict[int, OrderedDict[int, None]] = {}
        self._fewest = 0

    def __contains__(self, block: int) -> bool:
        return block in self._hits

    def hit(self, block: int) -> None:
        hits = self._hits[block]
        peers = self._with_hits[hits]
        del peers[block]
        if not peers and hits == self._fewest:
            self._fewest += 1
        self._hits[block] = hits + 1
        self._with_hits.setdefault(hits + 1, OrderedDict())[block] = None

    def insert(self, block: int) -> None:
        if len(self._hits) == self.capacity:
            evicted, _ = self._with_hits[self._fewest].popitem(last=False)
            del self._hits[evicted]
        self._hits[block] = self._fewest = 0
        self._with_hits.setdefault(0, OrderedDict())[block] = None


class S3Fifo(Cache):
    """Yang et al., SOSP 2023, algorithm 1: a small and a main queue, and a ghost queue of keys."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._small_target = max(1, capacity // 10)
        self._most_ghosts = capacity - self._small_target
        self._hits: dict[int, int] = {}
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, block: int) -> bool:
        return block in self._hits

    def hit(self, block: int) -> None:
        self._hits[block] = min(self._hits[block] + 1, 3)

    def insert(self, block: int) -> None:
        while len(self._hits) >= self.capacity:
            self._evict()
        queue = self._small
        if block in self._ghosts:
            del self._ghosts[block]
            queue = self._main
        queue.append(block)
        self._hits[block] = 0

    def _evict(self) -> None:
        if self._small and (len(self._small) >= self._small_target or not self._main):
            block = self._small.popleft()
            if self._hits[block] > 1:
                self._hits[block] = 0
                self._main.append(block)
                return
            del self._hits[block]
            self._ghosts[block] = None
            if len(self._ghosts) > self._most_ghosts:
                self._ghosts.popitem(last=False)
            return
        block = self._main.popleft()
        if self._hits[block]:
            self._hits[block] -= 1
            self._main.append(block)
        else:
            del self._hits[block]


POLICIES: dict[str, type[Cache]] = {"lfu": Lfu, "fifo": Fifo, "s3fifo": S3Fifo}


def hits(trace: BlockTrace, cache: Cache, deepest_first: bool) -> int:
    """Return how many blocks hit: those of each prompt's leading run that are held on arrival."""
    count = 0
    hit, insert = cache.hit, cache.insert
    for blocks in trace.requests():
        for block in blocks:
            if block not in cache:
                break
            count += 1
        for block in reversed(blocks) if deepest_first else blocks:
            if block in cache:
                hit(block)
            else:
                insert(block)
    return count
