"""A model of physical pages: where each page-group's lie, and into what each chunk is divided.

For policies whose layer groups have pages of several sizes.  A chunk is as large as the largest
page, and whole until a grant says otherwise; a page of another size lies in a chunk that was
divided into pages of that size.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from allocators.base import Grant
from allocators.layered.base import LayeredAllocator
from harness.conformance.memory import require


class Frames:
    """Executes the unmaps, conversions and maps of grants, each as soon as it was answered."""

    def __init__(self, allocator: LayeredAllocator) -> None:
        self._allocator, self._ranks = allocator, allocator.geometry.ranks
        self._sizes = [self._size(i) for i in range(len(allocator.geometry.layer_groups))]
        self._chunk_bytes = max(self._sizes)
        #: of each chunk that was converted: the bytes of its pages
        self._pages_of: dict[int, int] = {}
        self._holders: Counter[tuple[int, int]] = Counter()
        self._pieces: dict[tuple[int, int], list[int]] = {}
        self._used: dict[int, tuple[int, int]] = {}

    def _size(self, layer_group: int) -> int:
        """Return the bytes of a page of a layer group, on all ranks."""
        calls = self._allocator.driver_calls(np.array([[0, 0, 0, layer_group]]))
        return next(size for size, n in calls.items() if n) * self._ranks

    def execute(self, grant: Grant) -> None:
        for _, _, page, i in grant.unmaps.tolist():
            self._holders[i, page] -= 1
            if not self._holders[i, page]:
                for piece in self._pieces.pop((i, page)):
                    del self._used[piece]
        for chunk, before, after in grant.converted.tolist():
            self._convert(chunk, before * self._ranks, after * self._ranks)
        for _, _, page, i in grant.maps.tolist():
            self._holders[i, page] += 1
            if self._holders[i, page] == 1:
                self._back(i, page)

    def _convert(self, chunk: int, before: int, after: int) -> None:
        is_so = self._pages_of.get(chunk, self._chunk_bytes)
        text = f"chunk {chunk} has pages of {is_so} bytes, not {before}"
        require(before == is_so != after, "conversions", text)
        first = chunk * self._chunk_bytes
        used = [at for at in self._used if first <= at < first + self._chunk_bytes]
        text = f"chunk {chunk} gets pages of {after} bytes while what lies at {used} is mapped"
        require(not used, "conversions", text)
        self._pages_of[chunk] = after

    def _back(self, layer_group: int, page: int) -> None:
        """Note where the pages of a page-group lie that is mapped from now on."""
        slot = np.array([page * self._allocator.layer_pages(layer_group)[0]])
        pieces = self._allocator.slot_pieces(layer_group, slot)[0].tolist()
        self._pieces[layer_group, page] = pieces
        size = self._sizes[layer_group]
        for at in pieces:
            chunk = at // self._chunk_bytes
            is_so = self._pages_of.get(chunk, self._chunk_bytes)
            text = f"a page of {size} bytes at {at} of chunk {chunk}, which has pages of {is_so}"
            require(size == is_so and not at % size, "conversions", text)
            text = f"page-groups {(layer_group, page)} and {self._used.get(at)} both lie at {at}"
            require(at not in self._used, "apart", text)
            self._used[at] = layer_group, page
