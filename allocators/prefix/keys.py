"""Keys of blocks: two 64-bit sums that stand for all tokens up to a block's end.

A token of identity x at position p adds mix(x + p * STEP) to the first sum and a second mix of that
to the second, modulo 2^64; the key of block b is the pair of sums at its end.  The position inside
the mix makes a sum of them, which NumPy forms for all blocks at once, stand for an ordered
sequence.  mix is the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection.

Taking the mixed values as random, n distinct prefixes hold a pair of equal keys with a probability
below n^2 / 2^129: 1.5e-21 for a billion blocks.  It is no defence against identities chosen to
collide, which a benchmark has no reason to fear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocators.base import IntArray

STEP = np.uint64(0x9E3779B97F4A7C15)
SECOND = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True, slots=True)
class BlockKeys:
    """Keys of the full blocks of one token stream: `first` to look up, `second` to make sure."""

    first: list[int]
    second: NDArray[np.uint64]  # [blocks]

    def __len__(self) -> int:
        return len(self.first)


NO_KEYS = BlockKeys([], np.empty(0, dtype=np.uint64))


def block_keys(token_ids: IntArray, block_tokens: int) -> BlockKeys:
    """Return the keys of the full blocks of `token_ids` (int64[tokens])."""
    blocks = len(token_ids) // block_tokens
    if not blocks:
        return NO_KEYS
    tokens = blocks * block_tokens
    position = np.arange(tokens, dtype=np.uint64)
    mixed = mix(np.ascontiguousarray(token_ids[:tokens]).view(np.uint64) + position * STEP)
    ends = slice(block_tokens - 1, None, block_tokens)
    first = np.cumsum(mixed)[ends]
    second = np.cumsum(mix(mixed ^ SECOND))[ends].copy()  # a view would keep all of the sums
    return BlockKeys(first.tolist(), second)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the mix of each; in compiled code of one number."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
