"""What virtual ranges need of a pool whose pages may be of two sizes, and whether it fits.

Large pages are whole chunks of the pool, small ones parts of divided chunks.  Whatever is mapped
and not needed can be unmapped, so it is room; but a chunk is room as a whole only if no small page
in it is needed:

    chunk 3     [ needed | ahead | free | behind ]     3 more small pages, no large one
    chunk 7     [ ahead  | ahead | free | free   ]     4 small pages, or a large one

With L large and S small pages needed in all, mapped or promised, and P chunks in which a small page
lies that is needed and mapped, all fits if there are L + max(P, S / parts, rounded up) chunks.
That stays true until all is mapped, for two rules: small pages are taken so that P does not grow
beyond it, else more is unmapped first (`_can_take`); and what a sequence has mapped ahead is used
only where it lies in chunks that can be spared, else it is unmapped and mapped elsewhere
(`_spare`).  With pages of one size S and P are 0.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from allocators.base import Geometry, IntArray
from allocators.layered.grouping import Spread
from allocators.layered.paged import LayeredPaged
from allocators.layered.virtual_pages import DriverPages, table_shapes


class RangeRoom(LayeredPaged):
    """A table for each layer group, whose rows are ranges: row r's sequence has range r.

    `low` and `high` [tables, ranges] are the page-groups that a live range needs: from, up to.
    """

    block_tables: ClassVar[bool] = False

    def __init__(
        self, geometry: Geometry, page_size: str, window_page_size: str | None, layout: str
    ) -> None:
        shapes, page_bytes, calls = table_shapes(geometry, page_size, window_page_size, layout)
        pages = DriverPages(geometry.pool_bytes, page_bytes * geometry.ranks, calls)
        super().__init__(geometry, Spread(shapes, geometry.layer_groups), pages)
        self.page_bytes, self.pages_per_group = int(page_bytes.min()), int(calls[0])
        self.driver: DriverPages = pages
        self.low, self.high = np.zeros_like(self.tables.count), np.zeros_like(self.tables.count)
        #: what will be needed once the present call is done, where that is known to be more
        self._coming: IntArray = np.zeros(2, dtype=np.int64)
        #: the fewest pages that a page-group of either size takes, [sizes, 2]
        weights = pages.weights.T
        sizes = [weights[pages.is_small == small] for small in (False, True)]
        self._smallest = [of[of.sum(axis=1).argmin()] for of in sizes if len(of)]

    # -- how much there is -------------------------------------------------------------------
    @property
    def available(self) -> int:
        """Chunks that may be promised: free ones and what excess leaves, but what is promised."""
        large, small = self._needs().tolist()
        return self.driver.total - large - max(self._least(small), self._pinning())

    @property
    def cached_pages(self) -> int:
        """Driver pages, counted in the smaller size, that only idle ranges have mapped."""
        mapped = self.tables.count - self.tables.gone
        return int((self.driver.units @ mapped)[~self.active].sum())

    def _needs(self) -> IntArray:
        """Return the large and the small pages that live ranges need, promised ones too, [2]."""
        tables = self.tables
        excess = tables.count - tables.gone - (self.high - self.low)
        return self.driver.weights @ (tables.held - excess.sum(axis=1))

    def _least(self, small: int) -> int:
        return -(-small // self.driver.chunks.parts)

    def _fits_empty(self, pages: IntArray) -> bool:
        large, small = (self.driver.weights @ pages).tolist()
        return large + self._least(small) <= self.driver.total

    def _never(self, pages: IntArray) -> str:
        large, small = (self.driver.weights @ pages).tolist()
        if not self.driver.two_sizes:
            return (
                f"{large} pages of {self.page_bytes} bytes are needed, the pool has "
                f"{self.driver.total}"
            )
        parts = self.driver.chunks.parts
        return (
            f"{large} pages of {self.page_bytes * parts} bytes and {small} of {self.page_bytes} "
            f"are needed, the pool has {self.driver.total} of the former"
        )

    def _fits(self, needs: IntArray, low: IntArray, high: IntArray) -> bool:
        """Say whether so much fits, [2], beside what stays mapped: that from `low` to `high`."""
        large, small = needs.tolist()
        room, least = self.driver.total - large, self._least(small)
        if least > room or not self.driver.two_sizes:
            return least <= room
        # No more chunks are pinned than have a small page in use.
        return self.driver.chunks.in_parts <= room or self._pinning(low, high) <= room

    def _fits_now(self, more: IntArray) -> bool:
        """Say whether so many pages more fit beside all that is needed, [2]."""
        return self._fits(self._needs() + more, self.low, self.high)

    def _pinning(self, low: IntArray | None = None, high: IntArray | None = None) -> int:
        return int(np.count_nonzero(self._pinned(low, high)))

    def _pinned(self, low: IntArray | None = None, high: IntArray | None = None) -> np.ndarray:
        """Say of each chunk whether a small page in it is needed, of columns `low` to `high`."""
        tables, pinned = self.tables, np.zeros(self.driver.total, dtype=bool)
        first = np.maximum(self.low if low is None else low, tables.gone)
        stop = np.minimum(self.high if high is None else high, tables.count)
        for index in np.flatnonzero(self.driver.is_small).tolist():
            counts = np.maximum(stop[index] - first[index], 0)
            rows = np.repeat(np.arange(len(counts)), counts)
            column = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            pages = tables.table[index][rows, first[index][rows] + column]
            pinned[self.driver.chunks_of(index, pages)] = True
        return pinned

    # -- taking ------------------------------------------------------------------------------
    def _can_take(self, groups: IntArray, after: IntArray | None) -> bool:
        """Say whether these page-groups can be taken now, [tables], and all promises still kept.

        `after` [2] is what is needed then; None: these are not needed, only mapped ahead.
        """
        chunks = self.driver.chunks
        large, small = (self.driver.weights @ groups).tolist()
        if not chunks.fits(large, small):
            return False
        if after is None or not small:
            return True
        needed = np.maximum(after, self._coming).tolist()
        room = self.driver.total - needed[0]
        taken, more = chunks.choose(small)
        if chunks.in_parts + len(taken) + more <= room:
            return True
        pinned = self._pinned()
        pinned[taken] = True
        return int(np.count_nonzero(pinned)) + more <= room
