"""Real memory of a model with layer groups: what both kinds of it share.

Layers are numbered by layer group here: those of the allocator's first one, then those of its
second.  A slot of a layer group is the keys and values of one token in all its layers, side by
side: [layers, 2, kv_heads, head_dim].
"""

from __future__ import annotations

import abc
from collections.abc import Iterator

import numpy as np
import torch

from allocators.base import Geometry, Grant, IntArray, Layout, Unsupported
from kernels.cache import expand
from kernels.memory.base import Backing

#: kinds of layers whose memory can be real
KINDS = ("full", "sliding")


class LayeredBacking(Backing):
    """As `Backing`, for the allocator's `geometry.layer_groups`.

    Raises `Unsupported` for layers that keep anything but keys and values of the geometry's heads.
    """

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(geometry, dtype, device)
        self.layer_numbers = 2 * geometry.kv_heads * geometry.head_dim  # of a token in one layer
        for group in geometry.layer_groups:
            if group.kind not in KINDS:
                raise Unsupported(
                    f"real memory is that of {' and '.join(KINDS)} layers; {group.kind} layers are "
                    "simulated only"
                )
            if group.slot_bytes != group.layers * self.layer_numbers * dtype.itemsize:
                raise Unsupported(
                    f"the {group.kind} layers keep {group.slot_bytes} bytes a token, not keys and "
                    f"values of {geometry.kv_heads} heads of {geometry.head_dim} in {dtype}"
                )
        #: the layer group of each layer, and its place in that
        self.places = [
            (index, layer)
            for index, group in enumerate(geometry.layer_groups)
            for layer in range(group.layers)
        ]

    @abc.abstractmethod
    def addressed(self, layout: Layout, layer_group: int) -> Layout:
        """Return the layout of rows in a layer group as the caches of its layers show them."""

    @abc.abstractmethod
    def read(self, layer_group: int, slots: IntArray) -> torch.Tensor:
        """Return a copy of slots, in the form that `write` takes; the first dimension is theirs."""

    @abc.abstractmethod
    def write(self, layer_group: int, slots: IntArray, numbers: torch.Tensor) -> None:
        """Write to slots what `read` returned of as many."""

    def copy(self, grant: Grant) -> None:
        moved = [
            (index, target, self.read(index, source))
            for index, source, target in by_layer_group(grant.copies)
        ]
        for index, target, numbers in moved:
            self.write(index, target, numbers)


def by_layer_group(moves: IntArray) -> Iterator[tuple[int, IntArray, IntArray]]:
    """Yield each layer group of a grant's moves, [moves, 4], and its single slots: from, to."""
    if not len(moves):
        return
    for index in np.unique(moves[:, 3]).tolist():
        yield index, *expand(moves[moves[:, 3] == index, :3])
