"""What a policy for layer groups answers beyond the protocol of all allocators.

The invariants of `allocators.base` hold in each layer group: each position that a token of this
step or a later one reads has exactly one slot there, and what is written belongs to one sequence.
Two more:

9. No hole: a position that the layer group's kind still needs has a slot (`LayerGroup.first_read`).
10. Apart: one byte of the pool belongs to the slots of one layer group at a time.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from allocators.base import Allocator, Geometry, IntArray, Layout, StepGrants, Unsupported


class LayeredAllocator(Allocator):
    """One policy for a model with layer groups, which `geometry.layer_groups` lists in order.

    A slot number counts slots of its layer group; `slot_places` says which bytes they are.
    """

    def __init__(self, geometry: Geometry, **knobs: Any) -> None:
        if not geometry.layer_groups:
            raise ValueError("a layered policy needs layer groups")
        super().__init__(geometry, **knobs)
        #: the first position that the latest step of a row computed: what it reads is still live
        self.first_new: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)
        #: whether the step that is being planned computes for a row
        self.computes = np.zeros(geometry.max_seqs, dtype=bool)

    @classmethod
    def of(cls, geometry: Geometry, **knobs: Any) -> Allocator:
        """Return this policy for a pool; raises `Unsupported` for a uniform model."""
        cls.require_layer_groups(geometry)
        return cls(geometry, **knobs)

    @classmethod
    def require_layer_groups(cls, geometry: Geometry) -> None:
        """Raise `Unsupported` for a uniform model."""
        if not geometry.layer_groups:
            raise Unsupported(f"{cls.__name__} knows models with layer groups only")

    def _compute(self, rows: IntArray, first: IntArray | int) -> None:
        """Note that the step being planned computes these rows from `first` on.

        A row may grow twice in one step (speculation: a token, then its draft).
        """
        self.first_new[rows] = np.where(self.computes[rows], self.first_new[rows], first)
        self.computes[rows] = True

    def _next_query(self, rows: IntArray) -> IntArray:
        """Return the first position that is computed from now on, the planned step included."""
        return np.where(self.computes[rows], self.first_new[rows], self.length[rows])

    def begin_step(self) -> StepGrants:
        self.computes[:] = False
        return super().begin_step()

    @abc.abstractmethod
    def layer_slots(self, row: int, layer_group: int) -> IntArray:
        """Return the slot of each position that the row was ever given one for, -1 if not now.

        [length] of a kind that grows; one of a `state`; [encoder_tokens] of a `cross`.
        """

    @abc.abstractmethod
    def slot_places(self, layer_group: int, slots: IntArray) -> IntArray:
        """Return the first byte of the pool of each of these slots.

        Of a slot in several pieces that of the first of them (`slot_pieces`); slots that are in
        use at one time never overlap.
        """

    def slot_pieces(self, layer_group: int, slots: IntArray) -> IntArray:
        """Return the first byte of each piece of these slots, [slots, pieces].

        A slot lies in pieces of equal length where its layers are not side by side; each byte of
        the pool belongs to one slot at a time.
        """
        return self.slot_places(layer_group, slots)[:, None]

    def layer_pages(self, layer_group: int) -> tuple[int, int]:
        """Return the slots of a page-group, and the page-groups of a virtual range.

        Of a policy that maps; slot s lies in page-group s // slots.
        """
        raise Unsupported(f"{type(self).__name__} does not map")

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
