"""A radix tree of blocks that evicts whole leaves, by the rules of SGLang's RadixAttention.

Blocks form *nodes*, runs without a branch.

- What an admission keys is a node, and so is each part that the row fills later: the rest of its
  prompt, and its output.
- A hit that ends inside a node parts it there.  The upper part counts as used when the request
  that hit it ends, as all that a request holds; the rest, which it does not hold, at once.

    prompt 1  [ 0 | 1 | 2 | 3 ]     one node
    prompt 2  [ 0 | 1 | 4 | 5 ]     hits 0 and 1:   [ 0 | 1 ] --+-- [ 2 | 3 ]   used now
                                                                +-- [ 4 | 5 ]

A *leaf* is a node that nobody holds and that has no continuation.  The leaf whose deepest block
ranks lowest (least recently used, fewest hits, or keyed first) is evicted whole, then the next,
until enough pages are blank; what is over stays blank.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import ClassVar

import numpy as np

from allocators.prefix.pool import Order, drop_stale

ROOT = -1


class LeafOrder(Order):
    """The tree as the eviction order sees it: parents, how many children each page has, and nodes.

    A node is named by its top page, `_top` [pages], which alone knows its deepest page, `_end`,
    and when it was used last, `_used` [pages].
    """

    # A page that gets a child is no leaf any more.
    insertion_sensitive: ClassVar[bool] = True

    def __init__(self, num_pages: int, eviction: str) -> None:
        super().__init__(num_pages)
        self.parent = np.full(num_pages, ROOT, dtype=np.int64)
        self.children = [0] * num_pages
        self.depth = [0] * num_pages
        self._top, self._end = list(range(num_pages)), list(range(num_pages))
        self._used = [0] * num_pages
        self._rank = {"lru": self._by_use, "lfu": self._by_hits, "fifo": self._by_age}[eviction]
        self._born, self._hits = [0] * num_pages, [0] * num_pages
        self._heap: list[tuple[int, ...]] = []
        self._clock = 0

    def _by_use(self, page: int) -> tuple[int, ...]:
        return self._used[self._top[page]], -self.depth[page]

    def _by_hits(self, page: int) -> tuple[int, ...]:
        return self._hits[page], *self._by_use(page)

    def _by_age(self, page: int) -> tuple[int, ...]:
        return (self._born[page],)

    # -- tree --------------------------------------------------------------------------------
    def attach(self, page: int, parent: int, depth: int, same_node: bool) -> None:
        """Put a page below `parent`; `same_node` asks for it to continue the parent's node."""
        self.parent[page], self.children[page], self.depth[page] = parent, 0, depth
        self._top[page] = self._end[page] = page
        if parent == ROOT:
            return
        self.children[parent] += 1
        if same_node and self.is_end(parent):
            self._top[page] = self._top[parent]
            self._end[self._top[page]] = page
        else:
            self.reach(parent)

    def is_end(self, page: int) -> bool:
        return self._end[self._top[page]] == page

    def top(self, page: int) -> int:
        return self._top[page]

    def reach(self, page: int) -> None:
        """Note that what a request shares ends at this page: the rest of its node counts as used.

        SGLang's lookup sets the time of each node that it enters, and parts the last one
        afterwards; so the part that is not hit keeps that time.
        """
        if self.is_end(page):
            return
        rest = self._part(page)
        self._clock += 1
        self._used[rest] = self._clock
        self._offer(self._end[rest])

    def _part(self, page: int) -> int:
        """Make what is below a page in its node a node of its own; return its top page."""
        top = self._top[page]
        end = self._end[top]
        run = [end]
        while (above := int(self.parent[run[-1]])) != page:
            run.append(above)
        rest = run[-1]
        for each in run:
            self._top[each] = rest
        self._end[top], self._end[rest], self._used[rest] = page, end, self._used[top]
        return rest

    # -- what happens to pages ---------------------------------------------------------------
    def inserted(self, pages: list[int], keys: list[int]) -> None:
        for page in pages:
            self._clock += 1
            self._born[page], self._hits[page] = self._clock, 0

    def hit(self, pages: list[int]) -> None:
        for page in pages:
            self._hits[page] += 1

    def freed(self, pages: list[int]) -> None:
        self._clock += 1
        tops = dict.fromkeys(self._top[page] for page in pages)
        for top in tops:
            self._used[top] = self._clock
        for top in tops:
            self._offer(self._end[top])
        drop_stale(self._heap, len(self.free), self._is_current)

    def unkeyed(self, pages: list[int]) -> None:
        for page in pages:
            self._cut_off(page)

    # -- eviction ----------------------------------------------------------------------------
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
        top = self._top[page]
        while True:
            chosen.append(page)
            self.free[page] = False
            above = self._detach(page)
            if page == top:
                if above != ROOT:
                    self._offer(above)
                return
            self._end[top] = above
            if not self.free[above]:  # a row was cut back and holds the node in part
                return
            page = above

    def _cut_off(self, page: int) -> None:
        """Take a page out of the tree; what is below it stays until it is evicted."""
        if not self.is_end(page):
            self._part(page)
        above = self._detach(page)
        if self._top[page] != page:
            self._end[self._top[page]] = above
        self.parent[self.parent == page] = ROOT
        self.children[page] = 0
        if above != ROOT:
            self._offer(above)

    def _detach(self, page: int) -> int:
        above = int(self.parent[page])
        if above != ROOT:
            self.children[above] -= 1
            self.parent[page] = ROOT
        return above

    def _offer(self, page: int) -> None:
        if self.free[page] and not self.children[page]:
            heappush(self._heap, (*self._rank(page), page))

    def _is_current(self, entry: tuple[int, ...]) -> bool:
        page = entry[-1]
        return bool(self.free[page]) and not self.children[page] and entry[:-1] == self._rank(page)
