"""What a policy for layer groups answers beyond the protocol of all allocators.

The invariants of `allocators.base` hold in each layer group: each position that a token of this
step or a later one reads has exactly one slot there, and what is written belongs to one sequence.
Two more:

9. No hole: a position that the layer group's kind still needs has a slot (`LayerGroup.first_read`).
10. Apart: one byte of the pool belongs to the slots of one layer group at a time.
"""

from __future__ import annotations

import abc

import numpy as np

from allocators.base import Allocator, Geometry, IntArray, Layout


class LayeredAllocator(Allocator):
    """One policy for a model with layer groups, which `geometry.layer_groups` lists in order.

    A slot number counts slots of its layer group; `slot_places` says which bytes they are.
    """

    def __init__(self, geometry: Geometry) -> None:
        if not geometry.layer_groups:
            raise ValueError("a layered policy needs layer groups")
        super().__init__(geometry)
        #: the first position that the latest growth of a row computed: what it reads is still live
        self.first_new: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)

    @abc.abstractmethod
    def layer_slots(self, row: int, layer_group: int) -> IntArray:
        """Return the slot of each position that the row was ever given one for, -1 if not now.

        [length] of a kind that grows; one of a `state`; [encoder_tokens] of a `cross`.
        """

    @abc.abstractmethod
    def slot_places(self, layer_group: int, slots: IntArray) -> IntArray:
        """Return the first byte of the pool of each of these slots.

        A slot whose layers do not lie side by side is where its first layer's bytes would begin
        if they did; distinct slots never overlap.
        """

    @abc.abstractmethod
    def layer_layout(self, rows: IntArray, layer_group: int) -> Layout:
        """Return what a kernel needs to find the KV of these sequences in one layer group."""

    def table_entries(self, longest: int | IntArray) -> int | IntArray:
        """As in `Allocator`; here a table for each layer group, of blocks of `page_tokens`."""
        if not self.block_tables:
            return 0
        page_tokens, entries = self.geometry.page_tokens, longest * 0
        for group in self.geometry.layer_groups:
            slots = longest if group.grows else group.encoder_tokens or 1
            entries = entries + -(-slots // page_tokens)
        return entries

    # A uniform view: the first layer group's.
    def layout(self, rows: IntArray) -> Layout:
        return self.layer_layout(rows, 0)

    def addresses(self, row: int) -> IntArray:
        return self.layer_slots(row, 0)
