"""Random requests that share prefixes, for the tests in this folder."""

from __future__ import annotations

import itertools

import numpy as np

from allocators.base import Geometry
from allocators.paged import Paged

COMBINATIONS = [
    ("hash", "lru"), ("hash", "lfu"), ("hash", "fifo"), ("hash", "s3fifo"),
    ("radix", "lru"), ("radix", "lfu"), ("radix", "fifo"),
]  # fmt: skip


def pool(
    blocks: int, block_size: int, index: str = "hash", eviction: str = "lru", **knobs
) -> Paged:
    geometry = Geometry(capacity_tokens=blocks * block_size, max_seqs=8, max_len=12 * block_size)
    return Paged(geometry, block_size=block_size, prefix_index=index, eviction=eviction, **knobs)


class Streams:
    """Token streams that branch off each other; generated tokens are nobody else's."""

    def __init__(self) -> None:
        self._unique = itertools.count(1_000)

    def make(self, family: int, shared: int, tokens: int) -> np.ndarray:
        """`tokens` identities, the first `shared` of them those of a family."""
        ids = np.arange(tokens, dtype=np.int64) + 100 * family
        for at in range(shared, tokens):
            ids[at] = next(self._unique)
        return ids
