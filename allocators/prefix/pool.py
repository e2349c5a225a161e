"""Pools of pages that nobody holds: some keep a key and can be hit (cached), the others are blank.

A pool stands in for the `FreeQueue` of a page table.  Its length counts both kinds, since both can
be handed out; a page that is handed out loses its key, which is an eviction.

`OrderedPool` hands out blank pages first, then cached ones in the order that a policy gives; the
pools of `free_order` evict those that have been free for longest.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from heapq import heapify
from typing import ClassVar, TypeVar

import numpy as np

from allocators.base import IntArray
from allocators.page_table import FreeQueue

NO_FLAGS = np.empty(0, dtype=bool)

Entry = TypeVar("Entry", bound=tuple[int, ...])


class BlockPool(abc.ABC):
    """What all pools keep: `keyed` [pages], and `cached`, how many of the free ones are keyed."""

    #: whether an eviction is free of side effects, so that quiet steps may go on past one
    quiet_evictions: bool = True

    def __init__(self, num_pages: int) -> None:
        self.keyed = np.zeros(num_pages, dtype=bool)
        self.cached = 0
        self.evictions = 0
        #: tells the index that these pages have lost their keys
        self.on_evict: Callable[[list[int]], None] = lambda pages: None
        self._last = NO_FLAGS  # of the pages taken last, in order: did one lose its key

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    def quiet(self) -> int:
        """How many pages may be taken in one go with the same result as one by one over steps."""
        return len(self) if self.quiet_evictions else self.before_eviction()

    @abc.abstractmethod
    def before_eviction(self) -> int:
        """Return how many pages are handed out before the first that loses its key."""

    def take(self, n: int) -> IntArray:
        """Remove and return `n` pages; those with a key lose it."""
        assert n <= len(self), "the caller checks before it takes"
        pages, evicted = self._take(n)
        self._last = evicted
        return pages

    @abc.abstractmethod
    def _take(self, n: int) -> tuple[IntArray, np.ndarray]: ...

    @abc.abstractmethod
    def give(self, pages: IntArray) -> None:
        """Add pages that nobody holds any more, deepest first."""

    @abc.abstractmethod
    def remove(self, pages: IntArray) -> None:
        """Take these cached pages out; they are held again and keep their keys."""

    @abc.abstractmethod
    def pages(self) -> IntArray:
        """Return all pages of the pool."""

    def cached_before(self, taken: IntArray) -> IntArray:
        """Return how many pages were cached before the last `taken[i]` pages were handed out.

        They are of one `take`, the last one.
        """
        lost = np.concatenate([[0], np.cumsum(self._last[::-1])])
        return self.cached + lost[np.minimum(taken, len(self._last))]

    # -- what an eviction policy may want to know -----------------------------------------------
    def inserted(self, pages: list[int], keys: list[int]) -> None:  # noqa: B027
        """Note that these held pages got keys, in this order."""

    def hit(self, pages: IntArray) -> None:  # noqa: B027
        """Note a prefix hit on these pages, before they are held."""

    def unkey(self, pages: IntArray) -> None:
        """Note that these held pages lost their keys."""
        self.keyed[pages] = False

    def _evict(self, pages: IntArray) -> None:
        self.keyed[pages] = False
        self.cached -= len(pages)
        self.evictions += len(pages)
        self.on_evict(pages.tolist())


class Order(abc.ABC):
    """An eviction policy: which cached page goes next.  `free` [pages] says which are cached."""

    #: whether a key that is added between two evictions can change the second
    insertion_sensitive: ClassVar[bool] = False

    def __init__(self, num_pages: int) -> None:
        self.free = np.zeros(num_pages, dtype=bool)

    @abc.abstractmethod
    def inserted(self, pages: list[int], keys: list[int]) -> None:
        """Note that these pages got keys, in this order."""

    def hit(self, pages: list[int]) -> None:  # noqa: B027
        """Note a prefix hit on these pages."""

    @abc.abstractmethod
    def freed(self, pages: list[int]) -> None:
        """Note that nobody holds these pages any more, deepest first; `free` says so already."""

    def unkeyed(self, pages: list[int]) -> None:  # noqa: B027
        """Note that these held pages lost their keys."""

    @abc.abstractmethod
    def victims(self, n: int) -> list[int]:
        """Choose `n` or more cached pages to evict, in order; at least `n` are cached."""


def drop_stale(heap: list[Entry], num_pages: int, is_current: Callable[[Entry], bool]) -> None:
    """Keep the current entries of an order's heap, once it has far more than there are pages.

    Pages that are hit and freed again leave stale entries behind.
    """
    if len(heap) > 4 * num_pages + 64:
        heap[:] = {entry for entry in heap if is_current(entry)}
        heapify(heap)


class OrderedPool(BlockPool):
    """Blank pages first, in first-in first-out order; then cached ones as `order` says."""

    def __init__(self, num_pages: int, order: Order) -> None:
        super().__init__(num_pages)
        self.order = order
        self.quiet_evictions = not order.insertion_sensitive
        self._blank = FreeQueue(num_pages)

    def __len__(self) -> int:
        return len(self._blank) + self.cached

    def before_eviction(self) -> int:
        return len(self._blank)

    def _take(self, n: int) -> tuple[IntArray, np.ndarray]:
        pages = self._blank.take(min(n, len(self._blank)))
        short = n - len(pages)
        if not short:
            return pages, np.zeros(n, dtype=bool)
        victims = np.array(self.order.victims(short), dtype=np.int64)
        self.order.free[victims] = False
        self._evict(victims)
        self._blank.give(victims[short:])
        evicted = np.arange(n) >= len(pages)
        return np.concatenate([pages, victims[:short]]), evicted

    def give(self, pages: IntArray) -> None:
        keyed = self.keyed[pages]
        self._blank.give(pages[~keyed])
        cached = pages[keyed]
        if len(cached):
            self.order.free[cached] = True
            self.order.freed(cached.tolist())
            self.cached += len(cached)

    def remove(self, pages: IntArray) -> None:
        self.order.free[pages] = False
        self.cached -= len(pages)

    def pages(self) -> IntArray:
        return np.concatenate([self._blank.pages(), np.flatnonzero(self.order.free)])

    def inserted(self, pages: list[int], keys: list[int]) -> None:
        self.order.inserted(pages, keys)

    def hit(self, pages: IntArray) -> None:
        self.order.hit(pages.tolist())

    def unkey(self, pages: IntArray) -> None:
        super().unkey(pages)
        self.order.unkeyed(pages.tolist())
