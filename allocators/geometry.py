"""The pool that an allocator divides, in slots and in bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocators.layers import IntArray, LayerGroup


@dataclass(frozen=True, slots=True)
class Geometry:
    """The pool an allocator divides, and the shape of one token's KV.

    `kv_heads` is per rank; a token's bytes are summed over `ranks` (tensor parallelism).
    """

    capacity_tokens: int
    max_seqs: int
    max_len: int
    page_tokens: int = 1
    layers: int = 1
    kv_heads: int = 1
    head_dim: int = 1
    dtype_bytes: int = 2
    ranks: int = 1
    #: of the scale of one token's keys in one head, and of its values, where they are quantised so
    scale_bytes: int = 0
    #: slots of host memory for sequences that are swapped out
    host_tokens: int = 0
    #: what the layers keep where they do not all keep every token's keys and values; then
    #: `capacity_tokens` counts tokens with a slot in each of them
    layer_groups: tuple[LayerGroup, ...] = ()
    #: the pool's bytes where there are layer groups
    pool_bytes: int = 0
    #: the most tokens that a step computes, 0 where nobody has said
    step_tokens: int = 0

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's KV, in every layer that takes a slot for it."""
        if self.layer_groups:
            return sum(group.slot_bytes for group in self.layer_groups if group.grows)
        return 2 * self.layers * self.ranks * self.token_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys, or values, in one layer on one rank of a uniform model."""
        return self.kv_heads * (self.head_dim * self.dtype_bytes + self.scale_bytes)

    @property
    def capacity_bytes(self) -> int:
        if self.layer_groups:
            return self.pool_bytes
        return self.capacity_tokens * self.bytes_per_token

    def bytes_moved(self, moves: IntArray) -> int:
        """Return the bytes of the slots in `Grant.copies` or one of its swaps."""
        if not len(moves):
            return 0
        if not self.layer_groups:
            return int(moves[:, 2].sum()) * self.bytes_per_token
        slot_bytes = np.array([group.slot_bytes for group in self.layer_groups])
        return int((moves[:, 2] * slot_bytes[moves[:, 3]]).sum())
