"""Random requests that share prefixes, for the tests in this folder."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np

from allocators.base import Allocator, Demand, Geometry, IntArray, Prompt
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


def serve_some(real: Allocator, rng: np.random.Generator) -> IntArray:
    """Admit up to four requests of two families and end some, 25 steps; return who lives."""
    streams = Streams()
    for step in range(25):
        live = np.flatnonzero(real.active)
        if len(live) < 4:
            row, tokens = int(np.flatnonzero(~real.active)[0]), int(rng.integers(1, 14))
            ids = streams.make(int(rng.integers(2)), int(rng.integers(14)), 40)
            real.admit(np.array([row]), Prompt(tokens, ids), Demand(tokens, 1))
        elif step % 3 == 0:
            real.release(rng.permutation(live)[:2])
        real.begin_step()
    return np.flatnonzero(real.active)


def grown_one_by_one(
    real: Allocator,
    rows: IntArray,
    finals: IntArray,
    steps: int,
    state: Callable[[Allocator], dict],
) -> Allocator:
    """Assert that growing by `steps` at once is growing one by one; return a copy so grown."""
    at_once, single = copy.deepcopy(real), copy.deepcopy(real)
    assert_quiet(at_once, rows, steps)
    usage = at_once.usage(rows, finals, steps)
    for step in range(steps):
        assert_quiet(single, rows, 1)
        alone = single.usage(rows, finals)
        for name in ("token", "reserved", "internal", "cached", "free", "pages"):
            assert getattr(usage, name)[step] == getattr(alone, name)[0], name
    assert state(at_once) == state(single)
    return single


def assert_quiet(real: Allocator, rows: IntArray, n: int) -> None:
    """Let rows grow in a step that asks nothing of memory."""
    assert all(grant.is_empty for grant in (real.grow(rows, n), *real.begin_step()))


def assert_no_index_without_tokens(plain: Allocator, real: Allocator) -> None:
    """Assert that prompts of unknown tokens leave an index as if there were none."""
    for allocator in (plain, real):
        allocator.admit(np.array([0]), Prompt(9), Demand(9, 3))
        allocator.begin_step()
        allocator.grow(np.array([0]), 3)
        allocator.begin_step()
        allocator.release(np.array([0]))
        allocator.admit(np.array([1]), Prompt(9), Demand(9, 3))
        allocator.begin_step()
    assert real.balance() == plain.balance()
    assert real.pages.table.tolist() == plain.pages.table.tolist()
    assert real.prefix_stats.lookups == 0
