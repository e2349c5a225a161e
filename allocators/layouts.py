"""What a kernel needs to find the KV of some rows."""

from __future__ import annotations

from dataclasses import dataclass

from allocators.layers import IntArray


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Paged layout: page p // page_tokens of row i holds position p, at p % page_tokens."""

    page_tokens: int
    table: IntArray  # [rows, pages], -1 where a row has no page
    lengths: IntArray  # [rows]

    def take(self, at: IntArray) -> BlockTable:
        """Return these rows of it, in this order."""
        return BlockTable(self.page_tokens, self.table[at], self.lengths[at])


@dataclass(frozen=True, slots=True)
class Strided:
    """Contiguous layout (physical or virtual): position p of row i lies in slot base[i] + p.

    Where there is a `ring` of so many slots, it lies in slot base[i] + p % ring[i].
    """

    base: IntArray  # [rows]
    lengths: IntArray  # [rows]
    ring: IntArray | None = None  # [rows]

    def take(self, at: IntArray) -> Strided:
        """Return these rows of it, in this order."""
        ring = None if self.ring is None else self.ring[at]
        return Strided(self.base[at], self.lengths[at], ring)


#: what a kernel needs to find the KV of some rows
Layout = BlockTable | Strided
