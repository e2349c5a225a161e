"""Keys stand for all tokens up to a block's end, and for nothing else."""

from __future__ import annotations

import numpy as np

from allocators.prefix.keys import block_keys


def test_keys_agree_exactly_on_common_leading_blocks():
    rng = np.random.default_rng(0)
    a = rng.integers(-(2**62), 2**62, 64)
    for at in range(64):
        b = a.copy()
        b[at] += 1
        same = [x == y for x, y in zip(block_keys(a, 4).first, block_keys(b, 4).first, strict=True)]
        assert same == [block < at // 4 for block in range(16)]


def test_the_order_of_tokens_matters():
    seen = {tuple(block_keys(np.array(p), 3).first) for p in ([1, 2, 3], [3, 2, 1], [2, 1, 3])}
    assert len(seen) == 3


def test_a_key_does_not_depend_on_what_comes_after():
    ids = np.arange(50)
    assert block_keys(ids, 8).first == block_keys(ids[:48], 8).first
    assert block_keys(ids[:7], 8).first == []


def test_the_two_sums_differ_and_repeat_for_no_block_of_a_large_set():
    ids = np.arange(400_000)
    keys = block_keys(ids, 4)
    assert len(set(keys.first)) == len(np.unique(keys.second)) == 100_000
    assert not set(keys.first) & set(keys.second.tolist())


def test_a_first_key_that_collides_is_a_miss_and_not_a_wrong_hit(monkeypatch):
    from allocators.base import Demand, Prompt
    from allocators.prefix import index, keys
    from tests.allocators.prefix.streams import pool

    def colliding(token_ids, block_tokens):
        honest = keys.block_keys(token_ids, block_tokens)
        return keys.BlockKeys(list(range(len(honest))), honest.second)

    monkeypatch.setattr(index, "block_keys", colliding)
    real = pool(10, 4)
    real.admit(np.array([0]), Prompt(9, np.arange(9)), Demand(9, 1))
    assert real.lookup(Prompt(9, np.arange(9))) == 8
    other = np.arange(9)
    other[5] = 77
    assert real.lookup(Prompt(9, other)) == 4
    assert real.lookup(Prompt(9, np.arange(9) + 50)) == 0
