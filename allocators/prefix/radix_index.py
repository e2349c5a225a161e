"""An index of blocks in a radix tree, in the manner of SGLang.

Each block is a child of the one before it, so that a cached block always has its whole prefix
cached.  Which of them form a node, and which leaf gives way, `leaf_order` says.

A second copy of a block that is in the tree gets no key: it is blank when it is freed.  So the
holder of a second copy may have keyed blocks below a block that nobody holds.  Such a block is no
leaf; it goes when no leaf is left, one at a time, and those below it cannot be hit any more.
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray, Prompt
from allocators.page_table import PageTable
from allocators.prefix.index import KeyedIndex
from allocators.prefix.leaf_order import ROOT, LeafOrder
from allocators.prefix.pool import OrderedPool


class RadixIndex(KeyedIndex):
    """One page for each key, linked to that of the block before it."""

    def __init__(self, pages: PageTable, eviction: str) -> None:
        self._tree = LeafOrder(pages.num_pages, eviction)
        rows = len(pages.count)
        self._prompt_blocks = [0] * rows  # full blocks of each row's whole prompt
        self._newest = [ROOT] * rows  # page that each row keyed last
        super().__init__(pages, OrderedPool(pages.num_pages, self._tree))

    def hold(self, row: int, found: IntArray) -> None:
        super().hold(row, found)
        if len(found):
            self._tree.reach(int(found[-1]))

    def admitted(self, row: int, prompt: Prompt, found: IntArray, alone: bool) -> None:
        whole = max(prompt.tokens, prompt.whole_tokens)
        self._prompt_blocks[row] = whole // self._pages.page_tokens
        self._newest[row] = ROOT
        super().admitted(row, prompt, found, alone)

    def _insert(self, row: int, start: int, stop: int, deepest_first: bool) -> None:
        keys, ref = self._keys[row], self._pages.ref
        # Where another request's copy stood in the tree and is gone, this row's own takes its
        # place; but a page that has other holders may be one that such a holder will write.
        while start and keys.first[start - 1] not in self._page_of:
            start -= 1
        above = self._page_of[keys.first[start - 1]] if start else ROOT
        pages, added = [], []
        for block, page in enumerate(self._pages.table[row, start:stop].tolist(), start):
            key = keys.first[block]
            if key not in self._page_of and ref[page] > 1:
                break
            present = self._page_of.setdefault(key, page)
            if present == page:
                # A node is held by the same rows throughout.
                same_node = above == self._newest[row] and block != self._prompt_blocks[row]
                self._tree.attach(page, above, block, same_node and ref[above] == 1)
                self._newest[row] = page
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
        for page in keyed.tolist():
            top, above = self._tree.top(page), int(self._tree.parent[page])
            assert page == top or self._tree.top(above) == top, "a node is not a run"
            assert self._tree.children[page] or self._tree.is_end(page), "a leaf goes on"
