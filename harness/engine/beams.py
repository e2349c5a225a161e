"""Which candidate of a beam each candidate continues: drawn, or left open for a model to say."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray


def drawn_lineage(seed: int, request: int, steps: int, width: int, switch: float) -> IntArray:
    """Draw which candidate each candidate continues at each of `steps` beam steps, [steps, width].

    With probability `switch` a candidate is replaced by a continuation of one drawn uniformly (a
    Moran process), else it continues itself.  Depends on nothing but the seed and the request, so
    that every allocator sees the same beams.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), request]))
    replaced = rng.random((steps, width)) < switch
    drawn = rng.integers(0, width, (steps, width))
    return np.where(replaced, drawn, np.arange(width))


def open_lineage(steps: int, width: int) -> IntArray:
    """Let every candidate continue itself, [steps, width], until a model writes what it chose."""
    return np.tile(np.arange(width), (steps, 1))
