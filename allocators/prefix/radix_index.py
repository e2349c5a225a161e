"""A radix tree of blocks that evicts whole leaves, in the manner of SGLang's RadixAttention.

Each block is a child of the one before it, so that a cached block always has its whole prefix
cached.  The tree is kept by blocks rather than by runs of them; a run is found when it is needed.
A *leaf* is a run of cached blocks, from one without a cached continuation upwards, as far as

- each block above has no other continuation,
- one request keyed them all, and
- they were freed together, which is what a request that hits only a part of a run takes apart.

The leaf whose deepest block ranks lowest (least recently freed, fewest hits, or keyed first) is
evicted whole, then the next, until enough pages are blank; what is over stays blank.

A second copy of a block that is in the tree gets no key: it is blank when it is freed.  So the
holder of a second copy may have keyed blocks below a block that nobody holds.  Such a block is no
leaf; it goes when no leaf is left, one at a time, and those below it cannot be hit any more.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import ClassVar

import numpy as np

from allocators.base import IntArray
from allocators.page_table import PageTable
from allocators.prefix.index import KeyedIndex
from allocators.prefix.pool import Order, OrderedPool

ROOT = -1


class LeafOrder(Order):
    """The tree as the eviction order sees it: parents, and how many children each page has."""

    # A page that gets a child is no leaf any more.
    insertion_sensitive: ClassVar[bool] = True

    def __init__(self, num_pages: int, eviction: str) -> None:
        super().__init__(num_pages)
        self.parent = np.full(num_pages, ROOT, dtype=np.int64)
        self.children = [0] * num_pages
        self.depth = [0] * num_pages
        self.owner = [0] * num_pages
        self._rank = {"lru": self._by_use, "lfu": self._by_hits, "fifo": self._by_age}[eviction]
        self._born, self._hits = [0] * num_pages, [0] * num_pages
        self._freed = [0] * num_pages
        self._heap: list[tuple[int, ...]] = []
        self._clock = 0

    def _by_use(self, page: int) -> tuple[int, ...]:
        return self._freed[page], -self.depth[page]

    def _by_hits(self, page: int) -> tuple[int, ...]:
        return self._hits[page], self._freed[page], -self.depth[page]

    def _by_age(self, page: int) -> tuple[int, ...]:
        return (self._born[page],)

    # -- tree --------------------------------------------------------------------------------
    def attach(self, page: int, parent: int, depth: int, owner: int) -> None:
        self.parent[page], self.children[page] = parent, 0
        self.depth[page], self.owner[page] = depth, owner
        if parent != ROOT:
            self.children[parent] += 1

    def inserted(self, pages: list[int], keys: list[int]) -> None:
        for page in pages:
            self._clock += 1
            self._born[page], self._hits[page] = self._clock, 0

    def hit(self, pages: list[int]) -> None:
        for page in pages:
            self._hits[page] += 1

    def freed(self, pages: list[int]) -> None:
        self._clock += 1
        for page in pages:
            self._freed[page] = self._clock
        for page in pages:
            self._offer(page)
        if len(self._heap) > 4 * len(self.free) + 64:
            self._heap = [entry for entry in set(self._heap) if self._is_current(entry)]
            heapify(self._heap)

    def unkeyed(self, pages: list[int]) -> None:
        for page in pages:
            self._cut_off(page)

    def victims(self, n: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < n:
            if not self._heap:
                self._take_inner(chosen)
                continue
            entry = heappop(self._heap)
            if self._is_current(entry):
                self._take_leaf(entry[-1], chosen)
        return chosen

    def _take_inner(self, chosen: list[int]) -> None:
        """Choose the page that ranks lowest of those with a held page somewhere below."""
        page = min(np.flatnonzero(self.free).tolist(), key=self._rank)
        chosen.append(page)
        self.free[page] = False
        self._cut_off(page)

    def _take_leaf(self, page: int, chosen: list[int]) -> None:
        owner, freed = self.owner[page], self._freed[page]
        while True:
            chosen.append(page)
            self.free[page] = False
            above = int(self.parent[page])
            self._detach(page)
            if above == ROOT or self.children[above] or not self.free[above]:
                return
            if self.owner[above] != owner or self._freed[above] != freed:
                self._offer(above)
                return
            page = above

    def _cut_off(self, page: int) -> None:
        """Take a page out of the tree; what is below it stays until it is evicted."""
        above = int(self.parent[page])
        self._detach(page)
        self.parent[self.parent == page] = ROOT
        self.children[page] = 0
        if above != ROOT and self.free[above]:
            self._offer(above)

    def _detach(self, page: int) -> None:
        above = int(self.parent[page])
        if above != ROOT:
            self.children[above] -= 1
            self.parent[page] = ROOT

    def _offer(self, page: int) -> None:
        if not self.children[page]:
            heappush(self._heap, (*self._rank(page), page))

    def _is_current(self, entry: tuple[int, ...]) -> bool:
        page = entry[-1]
        return bool(self.free[page]) and not self.children[page] and entry[:-1] == self._rank(page)


class RadixIndex(KeyedIndex):
    """One page for each key, linked to that of the block before it."""

    def __init__(self, pages: PageTable, eviction: str) -> None:
        self._tree = LeafOrder(pages.num_pages, eviction)
        self._admissions = 0
        self._owner = [0] * len(pages.count)  # number of each row's admission
        super().__init__(pages, OrderedPool(pages.num_pages, self._tree))

    def hold(self, row: int, found: IntArray) -> None:
        self._admissions += 1
        self._owner[row] = self._admissions
        super().hold(row, found)

    def _insert(self, row: int, start: int, stop: int, deepest_first: bool) -> None:
        keys = self._keys[row]
        # Where another request's copy stood in the tree and is gone, this row's own takes its
        # place; but a page that has other holders may be one that such a holder will write.
        while start and keys.first[start - 1] not in self._page_of:
            start -= 1
        above = self._page_of[keys.first[start - 1]] if start else ROOT
        pages, added = [], []
        for block, page in enumerate(self._pages.table[row, start:stop].tolist(), start):
            key = keys.first[block]
            if key not in self._page_of and self._pages.ref[page] > 1:
                break
            present = self._page_of.setdefault(key, page)
            if present == page:
                self._tree.attach(page, above, block, self._owner[row])
                self._key[page] = key
                self._second[page] = keys.second[block]
                pages.append(page)
                added.append(key)
            above = present
        self._pool.keyed[pages] = True
        self._note(pages, added, deepest_first)

    def _evicted(self, pages: list[int]) -> None:
        for page in pages:
            del self._page_of[self._key[page]]

    def check(self, lengths: IntArray) -> None:
        super().check(lengths)
        keyed = np.flatnonzero(self._pool.keyed)
        assert len(self._page_of) == len(keyed), "a keyed page is not in the tree"
        parents = self._tree.parent[keyed]
        inner = parents[parents != ROOT]
        assert self._pool.keyed[inner].all(), "a block in the tree has lost its prefix"
        counted = np.bincount(inner, minlength=self._pages.num_pages)
        assert (counted[keyed] == np.array(self._tree.children, dtype=np.int64)[keyed]).all()
