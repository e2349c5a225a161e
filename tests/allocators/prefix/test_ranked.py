"""The heap of ranked blocks gives what a sorted list gives, wherever blocks are taken out."""

import numpy as np

from allocators.rules import ranked
from allocators.rules.cached import LFU, cached_blocks


def test_blocks_leave_the_heap_in_order_of_rank_wherever_others_are_taken_out():
    rng, n = np.random.default_rng(0), 60
    pool = cached_blocks(np.arange(n), n, LFU)
    inside = []
    for _ in range(3_000):
        outside = [block for block in range(n) if block not in inside]
        if outside and rng.random() < 0.55:
            block = int(rng.choice(outside))
            pool.ranks[block].hits = rng.integers(0, 5)
            ranked.stamp(pool, block)
            ranked.push(pool, block)
            inside.append(block)
        elif inside and rng.random() < 0.5:
            block = int(rng.choice(inside))
            ranked.remove(pool, block)
            inside.remove(block)
        elif inside:
            first = min(inside, key=lambda of: (pool.ranks[of].hits, pool.ranks[of].since))
            assert ranked.pop(pool) == first
            inside.remove(first)
    assert pool.counts[0].ranked == len(inside)
