"""Host memory for sequences that are swapped out (PagedAttention, sections 4.5 and 7.3).

A ticket names what was saved together: the caller's own number, given back to fetch it again.
Sharing survives: a page that several sequences of a group hold is saved once and restored once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from allocators.base import IntArray
from allocators.page_table import FreeQueue, PageTable, ceil_div
from allocators.placement import Extent, FirstFit


class HostTier(FreeQueue):
    """Free host pages, blank ones first, that hold blocks under keys until they are needed.

    Beyond the blank pages it takes those of the blocks that were saved or found least recently.
    """

    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self._page_of: OrderedDict[tuple[int, int], int] = OrderedDict()  # least recent first

    def __len__(self) -> int:
        return super().__len__() + len(self._page_of)

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._page_of

    def take(self, n: int) -> IntArray:
        for _ in range(n - super().__len__()):
            self.give(np.array([self._page_of.popitem(last=False)[1]]))
        return super().take(n)

    def save(self, key: tuple[int, int]) -> int | None:
        """Return the page in which to save a block; None if it is there already or none is free."""
        if key in self._page_of:
            self._page_of.move_to_end(key)
            return None
        if not len(self):
            return None
        page = int(self.take(1)[0])
        self._page_of[key] = page
        return page

    def claim(self, key: tuple[int, int]) -> int:
        """Forget a block; its page is nobody else's until it is given back."""
        return self._page_of.pop(key)

    def pages(self) -> IntArray:
        blocks = np.array(list(self._page_of.values()), dtype=np.int64)
        return np.concatenate([super().pages(), blocks])


@dataclass(slots=True)
class SavedPages:
    """`entries` [rows, pages] index into `pages` (host page numbers), -1 behind a row's end."""

    lengths: IntArray
    counts: IntArray
    entries: IntArray
    pages: IntArray


class HostPages:
    """A bounded host pool of pages as large as those of the device.

    `free`, if given, holds all pages and may use those that no suspended sequence has.
    """

    def __init__(self, num_pages: int, free: FreeQueue | None = None) -> None:
        self.num_pages = num_pages
        self._free = FreeQueue(num_pages) if free is None else free
        self._saved: dict[int, SavedPages] = {}

    def save(
        self, ticket: int, table: PageTable, rows: IntArray, lengths: IntArray
    ) -> IntArray | None:
        """Save what the rows hold; return (device slot, host slot, slots), None if it is full."""
        t = table.page_tokens
        counts = ceil_div(lengths, t)
        width = int(counts.max())
        used = np.arange(width) < counts[:, None]
        device, inverse = np.unique(table.table[rows, :width][used], return_inverse=True)
        if len(device) > len(self._free):
            return None
        pages = self._free.take(len(device))
        entries = np.full(used.shape, -1, dtype=np.int64)
        entries[used] = inverse
        self._saved[ticket] = SavedPages(lengths.copy(), counts, entries, pages)
        return np.column_stack([device * t, pages * t, np.full(len(pages), t)])

    def pages_of(self, ticket: int) -> int:
        return len(self._saved[ticket].pages)

    def lengths_of(self, ticket: int) -> IntArray:
        return self._saved[ticket].lengths

    def restore(self, ticket: int, table: PageTable, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Fetch a ticket into empty rows; the caller has made sure of the pages.

        Returns the lengths of the rows and (device slot, host slot, slots).
        """
        saved, t = self._saved.pop(ticket), table.page_tokens
        device = table.free.take(len(saved.pages))
        used = saved.entries >= 0
        held = device[saved.entries[used]]
        row, column = np.nonzero(used)
        table.table[rows[row], column] = held
        table.count[rows] = saved.counts
        np.add.at(table.ref, held, 1)
        self._free.give(saved.pages)
        swaps = np.column_stack([device * t, saved.pages * t, np.full(len(device), t)])
        return saved.lengths, swaps

    def check(self) -> None:
        held = sum(len(saved.pages) for saved in self._saved.values())
        assert held + len(self._free) == self.num_pages, "a host page is lost or counted twice"
        pages = [self._free.pages(), *(saved.pages for saved in self._saved.values())]
        assert len(np.unique(np.concatenate(pages))) == self.num_pages, "a host page has two uses"


class HostExtents:
    """A bounded host pool of extents for contiguous sequences."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._placement = FirstFit(slots) if slots else None
        self._saved: dict[int, list[tuple[int, int, Extent]]] = {}

    def save(
        self, ticket: int, starts: IntArray, lengths: IntArray, sizes: IntArray
    ) -> IntArray | None:
        """Save extents; return (device slot, host slot, slots), None if they do not fit."""
        taken: list[tuple[int, int, Extent]] = []
        for length, size in zip(lengths.tolist(), sizes.tolist(), strict=True):
            extent = self._placement.take(length) if self._placement else None
            if extent is None:
                for _, _, other in reversed(taken):
                    self._placement.give(other)
                return None
            taken.append((length, size, extent))
        self._saved[ticket] = taken
        return np.column_stack([starts, [extent.start for *_, extent in taken], lengths])

    def sizes_of(self, ticket: int, enlarge: Callable[[int], int]) -> list[int]:
        """Return how many slots each sequence had reserved; a full one asks for `enlarge`."""
        return [
            size if length < size else enlarge(length + 1)
            for length, size, _ in self._saved[ticket]
        ]

    def restore(self, ticket: int, starts: IntArray) -> tuple[IntArray, IntArray]:
        """Fetch a ticket to `starts`; return the lengths and (device slot, host slot, slots)."""
        saved = self._saved.pop(ticket)
        for _, _, extent in saved:
            self._placement.give(extent)
        lengths = np.array([length for length, *_ in saved], dtype=np.int64)
        return lengths, np.column_stack([starts, [extent.start for *_, extent in saved], lengths])

    def check(self) -> None:
        held = sum(extent.size for saved in self._saved.values() for *_, extent in saved)
        free = self._placement.free if self._placement else 0
        assert held + free == self._slots, "host slots are lost or counted twice"
