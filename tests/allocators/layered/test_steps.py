"""Several steps taken at once end as taken one by one: pages, their order in the pool, accounts."""

import copy

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt
from allocators.layers import LayerGroup
from allocators.paged import Paged
from tests.allocators.layered.side_by_side import ACCOUNTS

SEEDS = 60


def filled(rng):
    """Return a policy in which some sequences live, and their rows in any order."""
    kinds = rng.choice(["sliding", "chunked"], size=rng.integers(1, 4))
    groups = [LayerGroup(kind, 1, 4, window=int(rng.integers(1, 20))) for kind in kinds]
    geometry = Geometry(
        capacity_tokens=2000,
        max_seqs=12,
        max_len=120,
        layer_groups=(LayerGroup("full", 1, 4), *groups),
        pool_bytes=8000 * (1 + len(groups)),
        step_tokens=int(rng.integers(0, 40)),
    )
    spread = ["hybrid", "split", "uniform"][rng.integers(3)]
    policy = Paged.of(geometry, block_size=int(rng.integers(1, 6)), groups=spread)
    for row in range(rng.integers(1, 12)):
        policy.admit(np.array([row]), Prompt(int(rng.integers(1, 60))), Demand(60, 60))
    rows = rng.permutation(np.flatnonzero(policy.active))
    policy.begin_step()
    if rng.random() < 0.7:
        policy.grow(rows)
        policy.begin_step()
    return policy, rows


def free(policy):
    return [queue.pages().tolist() for queue in policy.pools.queues]


@pytest.mark.parametrize("part", range(2))
def test_what_falls_behind_goes_back_in_the_order_of_steps(part):
    gave, steps = 0, 0
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        rng = np.random.default_rng(seed)
        policy, rows = filled(rng)
        n = policy.lone_steps(rows, int(rng.integers(2, 40)))
        if n < 2:
            continue
        finals = policy.length[rows] + n + 5
        single = copy.deepcopy(policy)
        before = policy.tables.gone.sum()
        assert policy.take_steps(rows, n) is not None
        accounts = policy.usage(rows, finals, n)
        for step in range(n):
            assert single.grow(rows) is not None
            alone = single.usage(rows, finals)
            single.begin_step()
            for name in ACCOUNTS:
                assert getattr(alone, name)[0] == getattr(accounts, name)[step], (seed, name)
        assert free(policy) == free(single), seed
        assert all(map(np.array_equal, policy.tables.table, single.tables.table)), seed
        policy.check()
        gave += policy.tables.gone.sum() > before
        steps += n
    assert gave > SEEDS // 3
    assert steps > 5 * SEEDS
