"""A hash table from block keys to pages, as vLLM's V1 block pool has it.

Two requests that compute the same block at once both keep theirs: the key then names both pages,
in the order in which they got it, and a hit takes the first.  When that is evicted the next one
stands in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from allocators.base import IntArray
from allocators.page_table import PageTable
from allocators.prefix.index import KeyedIndex
from allocators.prefix.pool import BlockPool


class HashIndex(KeyedIndex):
    """Every full block of known tokens has a key; `pool` says in which order they are evicted."""

    def __init__(self, pages: PageTable, pool: BlockPool) -> None:
        super().__init__(pages, pool)
        self._more: dict[int, list[int]] = {}  # further pages of a key, oldest first

    def _insert(self, row: int, start: int, stop: int, deepest_first: bool) -> None:
        keys = self._keys[row]
        held = self._pages.table[row, start:stop]
        self._name(held, keys.first[start:stop], keys.second[start:stop], deepest_first)

    def _insert_each(self, rows: IntArray, blocks: IntArray) -> None:
        # The same in one go: a large batch fills a dozen blocks in every step.
        each = list(zip(rows.tolist(), blocks.tolist(), strict=True))
        first = [self._keys[row].first[block] for row, block in each]
        second = np.array([self._keys[row].second[block] for row, block in each])
        self._name(self._pages.table[rows, blocks], first, second, deepest_first=False)

    def _name(
        self, held: IntArray, keys: list[int], second: NDArray[np.uint64], deepest_first: bool
    ) -> None:
        pages = held.tolist()
        for key, page in zip(keys, pages, strict=True):
            if self._page_of.setdefault(key, page) != page:
                self._more.setdefault(key, []).append(page)
            self._key[page] = key
        self._second[held] = second
        self._pool.keyed[held] = True
        self._note(pages, keys, deepest_first)

    def _evicted(self, pages: list[int]) -> None:
        for page in pages:
            take_name(self._page_of, self._more, self._key[page], page)

    def check(self, lengths: IntArray) -> None:
        super().check(lengths)
        further = [page for pages in self._more.values() for page in pages]
        assert all(self._pool.keyed[page] for page in further), "a blank page under a key"
        named = len(self._page_of) + len(further)
        assert named == int(self._pool.keyed.sum()), "a keyed page is not in the index"


def take_name(page_of: dict[int, int], more: dict[int, list[int]], key: int, page: int) -> None:
    """Take a key from one of its pages, the first or one of `more`; the oldest of these is next."""
    others = more.get(key)
    if others is None:
        del page_of[key]
        return
    if page_of[key] == page:
        page_of[key] = others.pop(0)
    else:
        others.remove(page)
    if not others:
        del more[key]
