"""paged + hash + lru does, block by block, what a slow model of vLLM's rules does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allocators.base import Demand, NeverFits, Prompt, Unsupported
from tests.allocators.prefix.slow_model import SlowPool
from tests.allocators.prefix.streams import Streams, assert_no_index_without_tokens, pool
from tests.stories import tell

FREE_ORDERS = ("unkeyed_first", "by_age")


class Pair:
    """The allocator and the model, given the same calls."""

    def __init__(self, blocks: int, size: int, free_order: str) -> None:
        self.real = pool(blocks, size, free_order=free_order)
        self.slow, self.streams = SlowPool(blocks, size, free_order), Streams()
        self.blocks, self.size = blocks, size
        self.finals: dict[int, int] = {}

    def admit(self, draw) -> None:
        idle = [row for row in range(8) if row not in self.slow.held]
        if not idle:
            return
        prompt = draw(1, 6 * self.size)
        ids = self.streams.make(draw(0, 1), draw(0, 6 * self.size), prompt + draw(0, 3 * self.size))
        stream = tuple(ids.tolist())
        hit = len(self.slow.hits(stream, prompt)) * self.size
        assert self.real.lookup(Prompt(prompt, ids)) == hit
        tokens = min(prompt, hit + draw(1, prompt)) if draw(0, 1) else prompt
        row, demand = idle[draw(0, len(idle) - 1)], Demand(prompt, 1)
        ask = Prompt(tokens, ids, whole_tokens=prompt)
        try:
            grant = self.real.admit(np.array([row]), ask, demand)
        except NeverFits:
            assert -(-prompt // self.size) > self.blocks
            return
        expected = self.slow.admit(row, stream, tokens, prompt)
        assert (grant.cached_tokens if grant is not None else None) == expected
        if grant is not None:
            self.finals[row] = len(stream) + self.size

    def grow(self, draw) -> None:
        n = draw(1, 3) if draw(0, 1) else 1
        rows = [
            r for r in self.slow.held if self.slow.length[r] + n <= 12 * self.size and draw(0, 2)
        ]
        if rows:
            grant = self.real.grow(np.array(rows), n)
            assert (grant is not None) == self.slow.grow(rows, n)

    def release(self, draw) -> None:
        if self.slow.held:
            row = list(self.slow.held)[draw(0, len(self.slow.held) - 1)]
            self.real.release(np.array([row]))
            self.slow.release(row)

    def compare(self) -> None:
        real, slow = self.real, self.slow
        assert real.pages.free.pages().tolist() == slow.free
        assert real.pages.ref.tolist() == slow.ref
        for row, held in slow.held.items():
            assert real.pages.table[row, : len(held)].tolist() == held
            assert int(real.length[row]) == slow.length[row]
        keyed = [key is not None for key in slow.key]
        assert real.index._pool.keyed.tolist() == keyed
        assert real.evictions == slow.saw["evictions"]
        cached = slow.cached()
        active = sum(ref > 0 for ref in slow.ref)
        assert real.balance() == (active, cached, self.blocks - active - cached)
        real.check()


@pytest.mark.parametrize("free_order", FREE_ORDERS)
def test_every_step_agrees_with_the_slow_model_under_tight_pools(free_order):
    seen: Counter[str] = Counter()

    @settings(
        max_examples=50, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def every_step_agrees(data) -> None:
        def draw(low: int, high: int) -> int:
            return data.draw(st.integers(low, high))

        pair = Pair(draw(3, 14), draw(1, 4), free_order)
        for _ in range(draw(5, 40)):
            (pair.admit, pair.admit, pair.grow, pair.grow, pair.release)[draw(0, 4)](draw)
            pair.compare()
        seen.update(pair.slow.saw)

    needed = [
        "hits", "hits on live blocks", "evictions", "refusals", "refusals to grow",
        "refused for its own hits", "duplicates",
    ]  # fmt: skip
    if free_order == "unkeyed_first":
        needed.append("unkeyed blocks freed before cached ones")
    tell(every_step_agrees, lambda: all(seen[what] for what in needed))
    for what in needed:
        assert seen[what] > 0, f"the pools were never so tight that there were {what}"


@pytest.mark.parametrize("free_order", FREE_ORDERS)
def test_long_seeded_runs_agree_too(free_order):
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def draw(low: int, high: int, rng=rng) -> int:
            return int(rng.integers(low, high, endpoint=True))

        pair = Pair(draw(6, 20), draw(1, 5), free_order)
        for _ in range(150):
            (pair.admit, pair.admit, pair.grow, pair.grow, pair.release)[draw(0, 4)](draw)
            pair.compare()


def test_a_wholly_cached_prompt_leaves_its_last_block_to_be_computed():
    real = pool(10, 4)
    ids = np.arange(12)
    real.admit(np.array([0]), Prompt(12, ids), Demand(12, 1))
    assert real.lookup(Prompt(12, ids)) == 8
    assert real.lookup(Prompt(11, ids[:11])) == 8
    assert real.lookup(Prompt(13, np.arange(13))) == 12


def test_a_request_admitted_later_in_the_same_step_hits_at_once():
    real = pool(10, 4)
    ids = np.arange(9)
    assert real.admit(np.array([0]), Prompt(9, ids), Demand(9, 1)).cached_tokens == 0
    assert real.admit(np.array([1]), Prompt(9, ids), Demand(9, 1)).cached_tokens == 8
    assert real.pages.table[1, :2].tolist() == real.pages.table[0, :2].tolist()


def test_blocks_filled_while_decoding_are_hit_after_a_preemption():
    real = pool(10, 4)
    ids = np.arange(20)
    real.admit(np.array([0]), Prompt(5, ids), Demand(5, 15))
    for _ in range(6):
        real.grow(np.array([0]))
    real.release(np.array([0]))
    assert real.admit(np.array([3]), Prompt(12, ids), Demand(5, 15)).cached_tokens == 8


def test_what_a_group_generates_is_never_indexed():
    real = pool(20, 4)
    ids = np.arange(20)
    real.admit(np.array([0, 1]), Prompt(6, ids), Demand(6, 14))
    real.grow(np.array([0, 1]), 8)
    assert real.lookup(Prompt(20, ids)) == 4


@pytest.mark.parametrize(("free_order", "left"), [("unkeyed_first", 8), ("by_age", 4)])
def test_a_request_leaves_its_unfilled_block_to_the_next_before_any_cached_one(free_order, left):
    real = pool(5, 4, free_order=free_order)
    for first, tokens in ((0, 9), (100, 5)):  # 2 full blocks and 1 of them; each a partial one
        ids = np.arange(first, first + tokens)
        real.admit(np.array([0]), Prompt(tokens, ids), Demand(tokens, 1))
        real.release(np.array([0]))
    # By age: [partial, deep, shallow, partial, other], else [partial, partial, deep, shallow, ...].
    real.admit(np.array([0]), Prompt(5, np.arange(200, 205)), Demand(5, 1))
    assert real.lookup(Prompt(9, np.arange(9))) == left


@pytest.mark.parametrize("knobs", [{"index": "radix"}, {"eviction": "lfu"}])
def test_by_age_is_the_queue_of_hash_with_lru(knobs):
    with pytest.raises(Unsupported, match="one queue"):
        pool(4, 2, free_order="by_age", **knobs)


def test_no_tokens_known_means_no_index_at_all():
    # Which of the blank blocks is used differs by the free order, not by the index.
    assert_no_index_without_tokens(pool(6, 4, "none"), pool(6, 4, free_order="by_age"))
