"""From a trace and the options to one hit count for each policy, order and capacity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from allocators.base import IntArray
from harness.hitcurve import distances, policies
from harness.hitcurve.options import HitCurveOptions
from harness.hitcurve.trace import BlockTrace


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One cache: `hits` of the trace's `blocks`; a capacity of None is an unbounded cache."""

    policy: str
    order: str
    capacity_blocks: int | None
    hits: int
    blocks: int

    @property
    def hit_rate(self) -> float:
        """Share of the blocks that are hits, 0 to 1."""
        return self.hits / self.blocks


def compute(trace: BlockTrace, options: HitCurveOptions) -> Iterator[CurvePoint]:
    """Yield the points by order and policy, smallest capacity first, unbounded last."""
    bounds = [*(options.capacities or default_capacities(trace.distinct)), None]
    for order in options.orders:
        deepest_first = order == "deepest_first"
        for policy in options.policies:
            if policy == "lru":
                counts = lru_counts(trace, bounds, deepest_first)
            else:
                counts = (_simulated(trace, policy, b, deepest_first) for b in bounds)
            for bound, count in zip(bounds, counts, strict=True):
                yield CurvePoint(policy, order, bound, count, len(trace.blocks))


def default_capacities(distinct: int) -> list[int]:
    """Return capacities in blocks, in two digits, over which a curve of so many blocks bends."""
    shares = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    return sorted({max(1, round(float(f"{share * distinct:.2g}"))) for share in shares})


def lru_counts(trace: BlockTrace, bounds: list[int | None], deepest_first: bool) -> list[int]:
    """Return LRU's hits at each capacity, from one pass."""
    # A larger capacity holds no more than every block, and may be as large as distances.NEVER.
    clamped = [trace.distinct if b is None else min(b, trace.distinct) for b in bounds]
    capacities: IntArray = np.array(clamped)
    return distances.lru_hits(trace, capacities, deepest_first).tolist()


def _simulated(trace: BlockTrace, policy: str, bound: int | None, deepest_first: bool) -> int:
    if bound is None or bound >= trace.distinct:
        # A cache that holds every block of the trace evicts none, whatever its policy.
        return lru_counts(trace, [None], deepest_first)[0]
    return policies.hits(trace, policies.POLICIES[policy](bound), deepest_first)
