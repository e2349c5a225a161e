"""Host memory for suspended sequences of several tables, bounded in bytes."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from allocators.base import IntArray
from allocators.layered.tables import LayerTables


@dataclass(slots=True)
class SavedTable:
    """Of one table: `entries` [rows, columns] index into `pages` (host page numbers), else -1."""

    count: IntArray
    gone: IntArray
    entries: IntArray
    pages: IntArray


class HostLayers:
    """Pages as large as those of the device, numbered by pool; together within `size` bytes.

    A page that several sequences of a ticket hold is saved once and restored once.
    """

    def __init__(self, size: int, tables: LayerTables) -> None:
        self._size, self._tables = size, tables
        self._pool = [table.pool for table in tables.shapes.tables]
        self._bytes = [table.page_bytes for table in tables.shapes.tables]
        self._free: list[list[int]] = [[] for _ in set(self._pool)]
        self._next = [0] * len(self._free)
        self._used = 0
        self._saved: dict[int, tuple[IntArray, list[SavedTable]]] = {}

    def save(
        self,
        ticket: int,
        rows: IntArray,
        lengths: IntArray,
        within: tuple[IntArray, IntArray] | None = None,
    ) -> IntArray | None:
        """Save what the rows hold, or of that the columns `within`; None if it does not fit.

        `within` are the first column of each row and table and the one behind its last,
        [tables, rows].

        Returns rows of (device slot, host slot, slots, layer group).
        """
        tables, found = self._tables, []
        for index, table in enumerate(tables.table):
            first, stop = within or (tables.gone[:, rows], tables.count[:, rows])
            gone, count = first[index].copy(), stop[index].copy()
            held = table[rows, : int(count.max(initial=0))]
            column = np.arange(held.shape[1])
            held = np.where((column >= gone[:, None]) & (column < count[:, None]), held, -1)
            entries = np.full(held.shape, -1, dtype=np.int64)
            device, entries[held >= 0] = np.unique(held[held >= 0], return_inverse=True)
            found.append((device, SavedTable(count, gone, entries, device)))
        need = sum(len(device) * size for (device, _), size in zip(found, self._bytes, strict=True))
        if self._used + need > self._size:
            return None
        self._used += need
        moves = []
        for index, (device, saved) in enumerate(found):
            saved.pages = self._take(self._pool[index], len(device))
            moves.append(self._moves(index, device, saved.pages))
        self._saved[ticket] = (lengths.copy(), [saved for _, saved in found])
        return np.concatenate(moves)

    def pages_of(self, ticket: int) -> IntArray:
        """Return the pages that a ticket takes on the device, [tables]."""
        return np.array([len(saved.pages) for saved in self._saved[ticket][1]], dtype=np.int64)

    def restore(self, ticket: int, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Fetch a ticket into empty rows; the caller has made sure of the pages.

        Returns the lengths of the rows and (device slot, host slot, slots, layer group).
        """
        lengths, found = self._saved.pop(ticket)
        moves = []
        for index, saved in enumerate(found):
            device = self._tables.restore(index, rows, saved.count, saved.gone, saved.entries)
            moves.append(self._moves(index, device, saved.pages))
            for page in saved.pages.tolist():
                heapq.heappush(self._free[self._pool[index]], page)
            self._used -= len(device) * self._bytes[index]
        return lengths, np.concatenate(moves)

    def _moves(self, index: int, device: IntArray, host: IntArray) -> IntArray:
        at, t = np.full_like(device, index), self._tables.shapes.tables[index].page_tokens
        return self._tables.moves(at, device, host, np.full_like(device, t))

    def _take(self, pool: int, n: int) -> IntArray:
        pages = []
        for _ in range(n):
            if not self._free[pool]:
                heapq.heappush(self._free[pool], self._next[pool])
                self._next[pool] += 1
            pages.append(heapq.heappop(self._free[pool]))
        return np.array(pages, dtype=np.int64)

    def check(self) -> None:
        used = 0
        for pool, free in enumerate(self._free):
            pages = list(free)
            for _, found in self._saved.values():
                for index, saved in enumerate(found):
                    if self._pool[index] == pool:
                        pages += saved.pages.tolist()
                        used += len(saved.pages) * self._bytes[index]
            assert sorted(pages) == list(range(self._next[pool])), "a host page has two uses"
        assert used == self._used <= self._size, "host bytes are miscounted"
