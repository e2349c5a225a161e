"""Physical memory in chunks that are whole or divided: pages of two sizes out of one pool.

A chunk is as large as the larger page.  Whole it is one page; divided it is small pages of one
size.  NVIDIA's UVM driver divides its root chunks of 2 MiB in this way (`uvm_pmm_gpu.c`).

    chunk 3, divided     [ used | used | free | free ]     filled first: it has fewest free
    chunk 7, divided     [ used | free | free | free ]
    chunk 1, divided     [ free | free | free | free ]     made whole where a large page lacks it
    chunk 5              free, whole

Small pages come from the divided chunk that has fewest free, so that others become empty; a chunk
is divided where no small page is free, and made whole where no whole one is.  UVM makes a chunk
whole as soon as its last part is free; here it is left as it is, for either change costs calls.
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from allocators.page_table import FreeQueue


class Chunks:
    """`count` chunks, of which each may be divided into `parts` small pages (1: none is).

    Small page j of chunk c has the number c * parts + j.  The caller asks `fits` before it takes.
    """

    def __init__(self, count: int, parts: int) -> None:
        self.count, self.parts = count, parts
        self.whole = FreeQueue(count)
        self.divided = np.zeros(count, dtype=bool)
        #: of divided chunks: which small pages are free, and how many of each chunk
        self.free = np.zeros((count, parts), dtype=bool)
        self.left: IntArray = np.zeros(count, dtype=np.int64)
        self._divided = self._spare = 0  # how many chunks are, how many small pages are free
        #: since somebody asked last: chunk, pages that it was, pages that it became
        self.converted: list[tuple[int, int, int]] = []

    # -- how much there is -------------------------------------------------------------------
    @property
    def units_free(self) -> int:
        """Free memory in small pages."""
        return len(self.whole) * self.parts + self._spare

    @property
    def empty(self) -> IntArray:
        """Divided chunks all of whose small pages are free."""
        return np.flatnonzero(self.left == self.parts)

    @property
    def in_parts(self) -> int:
        """How many chunks have a small page in use."""
        return self._divided and self._divided - len(self.empty)

    def fits(self, large: int, small: int) -> bool:
        """Say whether so many pages of either size could be taken now."""
        if large + -(-small // self.parts) <= len(self.whole):
            return True
        empty = len(self.empty) if self._spare >= self.parts > 1 else 0
        lack = max(small - self._spare + empty * self.parts, 0)
        return large + -(-lack // self.parts) <= len(self.whole) + empty

    def choose(self, small: int) -> tuple[IntArray, int]:
        """Return the divided chunks that small pages would come from, and how many more."""
        chunks = np.flatnonzero(self.left)
        chunks = chunks[np.argsort(self.left[chunks], kind="stable")]
        held = np.cumsum(self.left[chunks])
        chunks = chunks[: int(np.searchsorted(held, small)) + 1 if small else 0]
        lack = small - int(self.left[chunks].sum())
        return chunks, max(-(-lack // self.parts), 0)

    # -- taking and giving -------------------------------------------------------------------
    def take(self, n: int) -> IntArray:
        """Take whole chunks; those that have been free for longest first."""
        lack = n - len(self.whole)
        if lack > 0:
            joined = self.empty[:lack]
            self.divided[joined], self.free[joined], self.left[joined] = False, False, 0
            self._divided -= lack
            self._spare -= lack * self.parts
            self.converted += [(chunk, self.parts, 1) for chunk in joined.tolist()]
            self.whole.give(joined)
        return self.whole.take(n)

    def give(self, chunks: IntArray) -> None:
        self.whole.give(chunks)

    def take_small(self, n: int) -> IntArray:
        chunks, more = self.choose(n)
        if more:
            fresh = self.whole.take(more)
            self.divided[fresh], self.free[fresh], self.left[fresh] = True, True, self.parts
            self._divided += more
            self._spare += more * self.parts
            self.converted += [(chunk, 1, self.parts) for chunk in fresh.tolist()]
            chunks = np.concatenate([chunks, fresh])
        at, part = np.nonzero(self.free[chunks])
        at, part = at[:n], part[:n]
        self.free[chunks[at], part] = False
        self.left[chunks] -= np.bincount(at, minlength=len(chunks))
        self._spare -= n
        return chunks[at] * self.parts + part

    def give_small(self, pages: IntArray) -> None:
        chunks, part = np.divmod(pages, self.parts)
        self.free[chunks, part] = True
        self.left += np.bincount(chunks, minlength=self.count)
        self._spare += len(pages)

    # -- checks ------------------------------------------------------------------------------
    def check(self, large: IntArray, small: IntArray) -> None:
        """Assert that the pages in use, of either size, and the free ones are all there are."""
        whole = np.sort(np.concatenate([self.whole.pages(), large]))
        assert np.array_equal(whole, np.flatnonzero(~self.divided)), "a chunk is lost or used twice"
        free = np.flatnonzero(self.free)
        pages = np.flatnonzero(np.repeat(self.divided, self.parts))
        found = np.sort(np.concatenate([free, small]))
        assert np.array_equal(found, pages), "a small page is lost or used twice"
        assert np.array_equal(self.left, self.free.sum(axis=1)), "free small pages are miscounted"
        assert self._spare == len(free), "free small pages are miscounted"
        assert self._divided == np.count_nonzero(self.divided), "divided chunks are miscounted"
