"""What is mapped where: (row, column) of the virtual ranges to physical page-groups."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from kernels.memory.base import BackingError


class PageMap:
    """`at[row, column]` is the page-group mapped there or -1; `places[page]` counts them."""

    def __init__(self, rows: int, columns: int, num_pages: int) -> None:
        self.at: IntArray = np.full((rows, columns), -1, dtype=np.int64)
        self.places: IntArray = np.zeros(num_pages, dtype=np.int64)
        self._homes: list[dict[int, None]] = [{} for _ in range(num_pages)]

    @property
    def pages_mapped(self) -> int:
        """Page-groups mapped in at least one place."""
        return int(np.count_nonzero(self.places))

    @property
    def places_mapped(self) -> int:
        return int(self.places.sum())

    def map(self, row: int, column: int, page: int) -> int:
        """Note a map; return the place, row x columns + column."""
        if self.at[row, column] != -1:
            raise BackingError(
                f"page-group {page} is to be mapped at {(row, column)}, where "
                f"{self.at[row, column]} is"
            )
        self.at[row, column] = page
        self.places[page] += 1
        place = row * self.at.shape[1] + column
        self._homes[page][place] = None
        return place

    def unmap(self, row: int, column: int, page: int) -> int:
        """Note an unmap; return the place."""
        if self.at[row, column] != page:
            raise BackingError(
                f"page-group {page} is to be unmapped at {(row, column)}, where "
                f"{self.at[row, column]} is"
            )
        self.at[row, column] = -1
        self.places[page] -= 1
        place = row * self.at.shape[1] + column
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
