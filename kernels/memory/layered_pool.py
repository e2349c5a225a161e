"""One pool of bytes out of which an allocator gives each layer group its slots.

Every layer sees the whole pool through a view of its own, in steps of the bytes of one token in one
layer, of which every slot's place is a multiple.  A page of the view begins at each such step, so
pages overlap; those that a table names at one time do not:

    pool      | s s s | f f | s s s | f f | ...        tokens of 3 sliding and of 2 full layers
    sliding   a page of t tokens at any step: tokens are 3 steps apart, a layer 1 from the next

So a page of a paged policy stays a page, wherever it lies.  In a contiguous extent each token is a
page of its own: windows are rings there, and a row's tokens need not follow each other.
"""

from __future__ import annotations

import numpy as np
import torch

from allocators.base import BlockTable, IntArray, Layout, Unsupported
from allocators.layered.base import LayeredAllocator
from kernels.memory.base import BackingError
from kernels.memory.layered import LayeredBacking
from kernels.memory.pool import Piece, Pool


class LayeredPool(Pool, LayeredBacking):
    """All of `geometry.pool_bytes`, allocated whole; for policies that do not map."""

    def __init__(
        self, allocator: LayeredAllocator, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(allocator.geometry, dtype, device)
        self._allocator = allocator
        self._slot_numbers = [
            group.layers * self.layer_numbers for group in self.geometry.layer_groups
        ]
        self._tokens = [self._page_tokens(index) for index in range(len(self._slot_numbers))]
        numbers = self.geometry.pool_bytes // dtype.itemsize
        self._piece = Piece(numbers, dtype, device)

    def _page_tokens(self, layer_group: int) -> int:
        layout = self._allocator.layer_layout(np.zeros(0, dtype=np.int64), layer_group)
        if not isinstance(layout, BlockTable):
            return 1
        first = self._allocator.slot_places(layer_group, np.arange(layout.page_tokens))
        apart = self._slot_numbers[layer_group] * self.dtype.itemsize
        if (np.diff(first) != apart).any():
            raise Unsupported("the slots of a page do not lie side by side")
        return layout.page_tokens

    # -- views -------------------------------------------------------------------------------
    def keys(self, layer: int) -> torch.Tensor:
        return self._view(layer, 0)

    def values(self, layer: int) -> torch.Tensor:
        return self._view(layer, self.layer_numbers // 2)

    def _view(self, layer: int, ahead: int) -> torch.Tensor:
        index, place = self.places[layer]
        g, tokens, apart = self.geometry, self._tokens[index], self._slot_numbers[index]
        pages = (len(self._piece.numbers) - tokens * apart) // self.layer_numbers + 1
        return self._piece.numbers.as_strided(
            (pages, tokens, g.kv_heads, g.head_dim),
            (self.layer_numbers, apart, g.head_dim, 1),
            place * self.layer_numbers + ahead,
        )

    def addressed(self, layout: Layout, layer_group: int) -> BlockTable:
        tokens = self._tokens[layer_group]
        if isinstance(layout, BlockTable):
            # What was given back is not read: any page will do.
            slots = np.maximum(layout.table, 0) * tokens
        else:
            position = np.arange(int(layout.lengths.max(initial=0)))
            ring = layout.ring
            at = position if ring is None else position % np.maximum(ring, 1)[:, None]
            inside = position < np.asarray(layout.lengths)[:, None]
            slots = np.where(inside, layout.base[:, None] + at, layout.base[:, None])
        return BlockTable(tokens, self._steps(layer_group, slots), layout.lengths)

    def _steps(self, layer_group: int, slots: IntArray) -> IntArray:
        """Return at which step of the pool each of these slots begins, in their shape."""
        places = self._allocator.slot_places(layer_group, slots.ravel()).reshape(slots.shape)
        steps, rest = np.divmod(places, self.layer_numbers * self.dtype.itemsize)
        if rest.any():
            raise BackingError("a slot does not begin at a multiple of one layer's token")
        return steps

    # -- slots -------------------------------------------------------------------------------
    def _slots(self, layer_group: int) -> torch.Tensor:
        """View every slot that may be, [steps, numbers of a slot]; they overlap."""
        numbers, whole = self._slot_numbers[layer_group], self._piece.numbers
        steps = (len(whole) - numbers) // self.layer_numbers + 1
        return whole.as_strided((steps, numbers), (self.layer_numbers, 1))

    def _at(self, layer_group: int, slots: IntArray) -> torch.Tensor:
        return torch.as_tensor(self._steps(layer_group, slots), device=self.device)

    def read(self, layer_group: int, slots: IntArray) -> torch.Tensor:
        return self._slots(layer_group)[self._at(layer_group, slots)]

    def write(self, layer_group: int, slots: IntArray, numbers: torch.Tensor) -> None:
        self._slots(layer_group)[self._at(layer_group, slots)] = numbers
