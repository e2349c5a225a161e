"""Pools of pages for several tables: who may take a page that another has given back.

A page has one number in the whole policy, whichever pool it is of.  `OnePool` has pages of equal
bytes that every table may take (vLLM's hybrid manager); `SplitPools` gives each table, or several,
pages of its own in a fixed share of the memory (SGLang, TensorRT-LLM).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Protocol

import numpy as np

from allocators.base import IntArray
from allocators.page_table import FreeQueue
from allocators.prefix.pool import BlockPool


class Queue(Protocol):
    """Free pages in the order in which they are taken: a `FreeQueue`, or a prefix index's pool."""

    def __len__(self) -> int: ...
    @property
    def quiet(self) -> int: ...
    def take(self, n: int) -> IntArray: ...
    def give(self, pages: IntArray) -> None: ...
    def pages(self) -> IntArray: ...


class Pools(abc.ABC):
    """Where tables take their pages from, and give them back.

    The caller asks `fits` or `serves` before it takes.  `tables` and `rows` say, for each page in
    order, for which table and which sequence it is.
    """

    #: how many pages there are in all
    num_pages: int
    #: which tables take from which pool, 1 or 0, [tables, pools]
    members: IntArray

    @abc.abstractmethod
    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        """Say whether each table could take so many pages now, [tables].

        And `leave` of each pool would still be free, [pools].
        """

    @abc.abstractmethod
    def take(self, tables: IntArray, rows: IntArray) -> IntArray:
        """Take a page for each of these, in order; return them."""

    @abc.abstractmethod
    def give(self, tables: IntArray, pages: IntArray) -> None:
        """Give back pages that nobody holds any more; the first of a pool is taken first."""

    @abc.abstractmethod
    def free(self) -> IntArray:
        """Return the pages that are free, [pools]."""

    def cached_before(self, taken: IntArray) -> IntArray:
        """Return the free pages that kept a key before the last `taken` were taken, likewise.

        [steps, pools].
        """
        return np.zeros_like(taken)

    @property
    @abc.abstractmethod
    def sizes(self) -> IntArray:
        """How many pages each pool has, [pools]."""

    @abc.abstractmethod
    def places(self, table: int, pages: IntArray) -> IntArray:
        """Return the first byte of each of these pages."""

    @property
    @abc.abstractmethod
    def page_bytes(self) -> IntArray:
        """Bytes of a page of each pool, [pools]."""

    @abc.abstractmethod
    def quiet(self, pages: IntArray) -> bool:
        """Say whether so many pages may be taken in one go as one by one over steps, [tables]."""

    @abc.abstractmethod
    def check(self, ref: IntArray) -> None:
        """Assert that the pages nobody holds are free, once each; `ref` [pages] counts holders."""


class PagePools(Pools):
    """Pools whose pages go and come in one step, as tables of pages need it."""

    #: whether pages are taken in the order in which they were given back, whatever comes between
    first_come: ClassVar[bool] = False

    @abc.abstractmethod
    def fits_empty(self, pages: IntArray) -> bool:
        """Say whether each table could take so many pages if nobody held any, [tables]."""

    @abc.abstractmethod
    def serves(self, takes: IntArray, tables: IntArray, at: IntArray, pages: IntArray) -> bool:
        """Say whether rows could take so many pages one after the other, [rows, tables].

        Each row first gives back what is freed in its place: `pages` of `tables` at row `at`.
        """

    def leading(
        self, takes: IntArray, tables: IntArray, at: IntArray, pages: IntArray
    ) -> int | None:
        """Return how many rows could, from the first on, where not all can.

        None where that depends on which are asked together.
        """
        return None

    def fits_beside(self, pages: IntArray, hit: list[IntArray], leave: IntArray | int = 0) -> bool:
        """Say whether `fits` would hold once these free pages of each table are held, too."""
        return self.fits(pages + np.array([len(held) for held in hit]), leave)


class CachingPools(PagePools):
    """Pools whose free pages may keep a key, and can be hit until they are taken."""

    @property
    @abc.abstractmethod
    def evictions(self) -> int:
        """How many pages lost their keys to be used for something else, so far."""

    @abc.abstractmethod
    def on_evict(self, forget: Callable[[list[int]], None]) -> None:
        """Let `forget` be told of pages that lose their keys."""

    @abc.abstractmethod
    def keyed(self, pages: IntArray) -> np.ndarray:
        """Say of each of these pages whether it has a key."""

    @abc.abstractmethod
    def name(self, pages: IntArray, ends: IntArray) -> None:
        """Note that these held pages got keys, of the blocks that end before tokens `ends`."""

    @abc.abstractmethod
    def unname(self, pages: IntArray) -> None:
        """Note that these held pages lost their keys."""

    @abc.abstractmethod
    def remove(self, pages: IntArray) -> None:
        """Take these cached pages out of their pools; they are held again and keep their keys."""


class SplitPools(PagePools):
    """Pages of one size a pool; `pool_of` [tables] says which pool a table takes from."""

    first_come: ClassVar[bool] = True

    def __init__(
        self, queues: Sequence[Queue], sizes: list[int], page_bytes: list[int], pool_of: IntArray
    ) -> None:
        self.queues, self.pool_of = queues, pool_of
        self._sizes = np.array(sizes, dtype=np.int64)
        self._page_bytes = np.array(page_bytes, dtype=np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes  # page number of each pool
        held = self._sizes * self._page_bytes
        self._base = np.cumsum(held) - held
        self.num_pages = int(self._sizes.sum())
        self.members = (pool_of[:, None] == np.arange(len(queues))).astype(np.int64)

    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        return bool((pages @ self.members + leave <= self.free()).all())

    def fits_empty(self, pages: IntArray) -> bool:
        return bool((pages @ self.members <= self._sizes).all())

    def serves(self, takes: IntArray, tables: IntArray, at: IntArray, pages: IntArray) -> bool:
        return not self._short(takes, tables, at).any()

    def leading(
        self, takes: IntArray, tables: IntArray, at: IntArray, pages: IntArray
    ) -> int | None:
        return int(self._short(takes, tables, at).argmax())

    def _short(self, takes: IntArray, tables: IntArray, at: IntArray) -> np.ndarray:
        """Say of each row whether something is lacking when those before it are served."""
        need = takes @ self.members
        np.subtract.at(need, (at, self.pool_of[tables]), 1)
        return (np.cumsum(need, axis=0) > self.free()).any(axis=1)

    def take(self, tables: IntArray, rows: IntArray) -> IntArray:
        if len(self.queues) == 1:
            return self.queues[0].take(len(tables))
        pools, pages = self.pool_of[tables], np.empty(len(tables), dtype=np.int64)
        for pool in np.unique(pools).tolist():
            at = np.flatnonzero(pools == pool)
            pages[at] = self.queues[pool].take(len(at)) + self._first[pool]
        return pages

    def give(self, tables: IntArray, pages: IntArray) -> None:
        if len(self.queues) == 1:
            self.queues[0].give(pages)
            return
        pools = self.pool_of[tables]
        for pool in np.unique(pools).tolist():
            self.queues[pool].give(pages[pools == pool] - self._first[pool])

    def free(self) -> IntArray:
        return np.array([len(queue) for queue in self.queues], dtype=np.int64)

    @property
    def sizes(self) -> IntArray:
        return self._sizes

    def places(self, table: int, pages: IntArray) -> IntArray:
        pool = self.pool_of[table]
        return self._base[pool] + (pages - self._first[pool]) * self._page_bytes[pool]

    @property
    def page_bytes(self) -> IntArray:
        return self._page_bytes

    def quiet(self, pages: IntArray) -> bool:
        quiet = np.array([queue.quiet for queue in self.queues], dtype=np.int64)
        return bool((pages @ self.members <= quiet).all())

    def check(self, ref: IntArray) -> None:
        free = [q.pages() + at for q, at in zip(self.queues, self._first.tolist(), strict=True)]
        pages = np.concatenate(free)
        assert len(np.unique(pages)) == len(pages), "a page is free twice"
        assert (ref[pages] == 0).all(), "a free page is in use"
        assert len(pages) + int((ref > 0).sum()) == self.num_pages, "a page is lost"


class OnePool(SplitPools):
    """One pool of pages in first-in first-out order that all tables take from."""

    def __init__(self, size: int, page_bytes: int, tables: int) -> None:
        queue = FreeQueue(size)
        super().__init__([queue], [size], [page_bytes], np.zeros(tables, dtype=np.int64))


class CachedPools(SplitPools, CachingPools):
    """Each pool keeps its cached pages in a queue of its own."""

    first_come: ClassVar[bool] = False

    def __init__(
        self,
        queues: list[BlockPool],
        sizes: list[int],
        page_bytes: list[int],
        pool_of: IntArray,
    ) -> None:
        super().__init__(queues, sizes, page_bytes, pool_of)
        self._caches = queues
        self._forget: Callable[[list[int]], None] = lambda pages: None
        for queue, first in zip(queues, self._first.tolist(), strict=True):
            queue.on_evict = partial(self._lost, first)

    def on_evict(self, forget: Callable[[list[int]], None]) -> None:
        self._forget = forget

    def _lost(self, first: int, pages: list[int]) -> None:
        self._forget([first + page for page in pages])

    def keyed(self, pages: IntArray) -> np.ndarray:
        if len(self._caches) == 1:
            return self._caches[0].keyed[pages]
        return np.concatenate([queue.keyed for queue in self._caches])[pages]

    def name(self, pages: IntArray, ends: IntArray) -> None:
        for queue, here in self._by_pool(pages):
            queue.keyed[here] = True

    def unname(self, pages: IntArray) -> None:
        for queue, here in self._by_pool(pages):
            queue.keyed[here] = False

    def remove(self, pages: IntArray) -> None:
        for queue, here in self._by_pool(pages):
            queue.remove(here)

    def _by_pool(self, pages: IntArray) -> Iterator[tuple[BlockPool, IntArray]]:
        if len(self._caches) == 1:
            yield self._caches[0], pages
            return
        for first, size, queue in zip(self._first, self._sizes, self._caches, strict=True):
            here = pages[(pages >= first) & (pages < first + size)] - first
            if len(here):
                yield queue, here

    def cached_before(self, taken: IntArray) -> IntArray:
        counts = [queue.cached_before(taken[:, i]) for i, queue in enumerate(self._caches)]
        return np.stack(counts, axis=1)

    @property
    def evictions(self) -> int:
        return sum(queue.evictions for queue in self._caches)
