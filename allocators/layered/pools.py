"""Pools of pages for several tables: who may take a page that another has given back.

A page has one number in the whole policy, whichever pool it is of.  `OnePool` has pages of equal
bytes that every table may take (vLLM's hybrid manager); `SplitPools` gives each table, or several,
pages of its own in a fixed share of the memory (SGLang, TensorRT-LLM).
"""

from __future__ import annotations

import abc
from typing import Protocol

import numpy as np

from allocators.base import IntArray
from allocators.page_table import FreeQueue


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

    @abc.abstractmethod
    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        """Say whether each table could take so many pages now, [tables].

        And `leave` of each pool would still be free, [pools].
        """

    @abc.abstractmethod
    def serves(self, takes: IntArray, gives: IntArray) -> bool:
        """Say whether rows could be served one after the other, [rows, tables].

        Each row first gives its pages back, which those behind it may take, and then takes.
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


class SplitPools(Pools):
    """Pages of one size a pool; `pool_of` [tables] says which pool a table takes from."""

    def __init__(
        self, queues: list[Queue], sizes: list[int], page_bytes: list[int], pool_of: IntArray
    ) -> None:
        self.queues, self.pool_of = queues, pool_of
        self._sizes = np.array(sizes, dtype=np.int64)
        self._page_bytes = np.array(page_bytes, dtype=np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes  # page number of each pool
        held = self._sizes * self._page_bytes
        self._base = np.cumsum(held) - held
        self.num_pages = int(self._sizes.sum())
        #: which tables take from which pool, [tables, pools]
        self._members = (pool_of[:, None] == np.arange(len(queues))).astype(np.int64)

    @classmethod
    def of(cls, sizes: list[int], page_bytes: list[int], pool_of: IntArray) -> SplitPools:
        """Return pools of blank pages in first-in first-out order."""
        return cls([FreeQueue(size) for size in sizes], sizes, page_bytes, pool_of)

    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        return bool((pages @ self._members + leave <= self.free()).all())

    def serves(self, takes: IntArray, gives: IntArray) -> bool:
        free = self.free()
        need = takes @ self._members
        if (need.sum(axis=0) <= free).all():
            return True  # even if nothing were given back
        short = np.cumsum(need - gives @ self._members, axis=0)
        return bool((short <= free).all())

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
        return bool((pages @ self._members <= quiet).all())

    def check(self, ref: IntArray) -> None:
        free = [q.pages() + at for q, at in zip(self.queues, self._first.tolist(), strict=True)]
        pages = np.concatenate(free)
        assert len(np.unique(pages)) == len(pages), "a page is free twice"
        assert (ref[pages] == 0).all(), "a free page is in use"
        assert len(pages) + int((ref > 0).sum()) == self.num_pages, "a page is lost"


class OnePool(SplitPools):
    """One pool of pages that all tables take from."""

    def __init__(self, queue: Queue, size: int, page_bytes: int, tables: int) -> None:
        super().__init__([queue], [size], [page_bytes], np.zeros(tables, dtype=np.int64))

    @property
    def queue(self) -> Queue:
        return self.queues[0]

    @queue.setter
    def queue(self, queue: Queue) -> None:
        self.queues[0] = queue
