"""A first-in first-out queue of pages from which pages can also be taken out of the middle."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray

_SCAN = 64


class LruQueue:
    """Pages in a buffer; a page that is taken out of the middle leaves a hole.

    `_at[page]` is where in the buffer a page stands, so that an entry is a hole when its page
    stands elsewhere or nowhere.  The buffer is twice as long as there are pages, and is packed
    when its end is reached: at most once for every `num_pages` pages given.
    """

    def __init__(self, num_pages: int, *, empty: bool = False) -> None:
        self._buffer = np.concatenate([np.arange(num_pages), np.zeros(num_pages, dtype=np.int64)])
        self._at = np.full(num_pages, -1) if empty else np.arange(num_pages)
        self._head, self._size = 0, 0 if empty else num_pages
        self._tail = self._size

    def __len__(self) -> int:
        return self._size

    def take(self, n: int) -> IntArray:
        """Remove and return the `n` pages that have been here for longest."""
        assert n <= self._size, "the caller checks before it takes"
        if self._tail - self._head == self._size:
            pages, used = self._buffer[self._head : self._head + n].copy(), n
        else:
            pages, used = self._scan(n)
        self._head += used
        self._size -= n
        self._at[pages] = -1
        return pages

    def give(self, pages: IntArray) -> None:
        """Append pages; the first of them will be taken first."""
        if self._tail + len(pages) > len(self._buffer):
            self._pack()
        stop = self._tail + len(pages)
        self._buffer[self._tail : stop] = pages
        self._at[pages] = np.arange(self._tail, stop)
        self._tail = stop
        self._size += len(pages)

    def remove(self, pages: IntArray) -> None:
        """Take these pages out, wherever they stand."""
        assert (self._at[pages] >= 0).all(), "the caller removes only what is here"
        self._at[pages] = -1
        self._size -= len(pages)

    def pages(self) -> IntArray:
        """Return the pages in the order in which they will be taken."""
        return self._entries(self._head, self._tail)[0]

    def first(self, n: int) -> IntArray:
        """Return the `n` pages that would be taken next."""
        return self._scan(n)[0]

    def _scan(self, n: int) -> tuple[IntArray, int]:
        """Return the first `n` pages and how many entries hold them, holes included."""
        width = n + _SCAN
        while True:
            stop = min(self._head + width, self._tail)
            pages, place = self._entries(self._head, stop)
            if len(pages) >= n:
                return pages[:n], int(place[n - 1]) + 1 if n else 0
            width *= 4

    def _entries(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        entries = self._buffer[start:stop]
        place = np.flatnonzero(self._at[entries] == np.arange(start, stop))
        return entries[place], place

    def _pack(self) -> None:
        pages = self.pages()
        self._buffer[: len(pages)] = pages
        self._at[pages] = np.arange(len(pages))
        self._head, self._tail = 0, len(pages)
