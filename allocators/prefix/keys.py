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

_STEP = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xD1342543DE82EF95)


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
    mixed = np.arange(tokens, dtype=np.uint64)
    mixed *= _STEP
    mixed += np.ascontiguousarray(token_ids[:tokens]).view(np.uint64)
    _mix(mixed)
    ends = slice(block_tokens - 1, None, block_tokens)
    first = np.cumsum(mixed)[ends].tolist()
    mixed ^= _SECOND
    _mix(mixed)
    return BlockKeys(first, np.cumsum(mixed)[ends].copy())


def _mix(x: NDArray[np.uint64]) -> None:
    """Mix in place; a new array at each step would take longer than the mixing."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
