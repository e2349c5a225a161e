"""What is mapped where: (virtual range, page-group of it) to physical page-groups."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from kernels.memory.base import BackingError


class PageMap:
    """`at[vrange, column]` is the page-group mapped there or -1; `places[page]` counts them."""

    def __init__(self, num_ranges: int, pages_per_range: int, num_pages: int) -> None:
        self.at: IntArray = np.full((num_ranges, pages_per_range), -1, dtype=np.int64)
        self.places: IntArray = np.zeros(num_pages, dtype=np.int64)
        self._homes: list[dict[int, None]] = [{} for _ in range(num_pages)]

    def map(self, vrange: int, column: int, page: int) -> int:
        """Note a map; return the place, vrange x pages_per_range + column."""
        if self.at[vrange, column] != -1:
            raise BackingError(
                f"page-group {page} is to be mapped at {(vrange, column)}, where "
                f"{self.at[vrange, column]} is"
            )
        self.at[vrange, column] = page
        self.places[page] += 1
        place = vrange * self.at.shape[1] + column
        self._homes[page][place] = None
        return place

    def unmap(self, vrange: int, column: int, page: int) -> int:
        """Note an unmap; return the place."""
        if self.at[vrange, column] != page:
            raise BackingError(
                f"page-group {page} is to be unmapped at {(vrange, column)}, where "
                f"{self.at[vrange, column]} is"
            )
        self.at[vrange, column] = -1
        self.places[page] -= 1
        place = vrange * self.at.shape[1] + column
        del self._homes[page][place]
        return place

    def homes(self, pages: IntArray) -> IntArray:
        """Return a place of each page-group.  Raises `BackingError` if it is mapped nowhere."""
        found = np.empty_like(pages)
        for i, page in enumerate(pages.tolist()):
            home = next(iter(self._homes[page]), None)
            if home is None:
                raise BackingError(f"page-group {page} is to be copied and mapped nowhere")
            found[i] = home
        return found
