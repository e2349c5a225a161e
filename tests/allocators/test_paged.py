"""Paged: the waste bound, and every decision against an oracle that works token by token."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Demand, Geometry, NeverFits, Prompt
from allocators.paged import Paged

POOL = Geometry(capacity_tokens=90, max_seqs=6, max_len=40, layers=2)


class OraclePaged:
    """Block lists in dicts, one token at a time, one sequence after the other.

    Copy-on-write needs no rule for several writers here: by the turn of the last one the others
    have left the block, so it writes in place.
    """

    def __init__(self, num_blocks, block_size):
        self.t, self.free = block_size, num_blocks
        self.blocks, self.length, self.holders = {}, {}, {}
        self._name = 0

    def _take(self):
        if not self.free:
            raise MemoryError
        self.free -= 1
        self._name += 1
        self.holders[self._name] = 1
        return self._name

    def _drop(self, block):
        self.holders[block] -= 1
        if not self.holders[block]:
            del self.holders[block]
            self.free += 1

    def _append(self, row):
        blocks, length = self.blocks[row], self.length[row]
        if length % self.t == 0:
            blocks.append(self._take())
        elif self.holders[blocks[-1]] > 1:
            new = self._take()
            self._drop(blocks[-1])
            blocks[-1] = new
        self.length[row] += 1

    def attempt(self, operation, *args):
        """Run an operation; restore everything and return False if it runs out of blocks."""
        before = copy.deepcopy(vars(self))
        try:
            getattr(self, operation)(*args)
        except MemoryError:
            vars(self).update(before)
            return False
        return True

    def admit(self, rows, prompt, private):
        self.blocks[rows[0]], self.length[rows[0]] = [], 0
        for _ in range(prompt):
            self._append(rows[0])
        self.fork(rows[0], rows[1:])
        for row in rows:
            for _ in range(private):
                self._append(row)

    def grow(self, rows, n):
        for _ in range(n):
            for row in rows:
                self._append(row)

    def fork(self, parent, children):
        for child in children:
            self.blocks[child], self.length[child] = [], self.length[parent]
            self._hold(child, self.blocks[parent])

    def _hold(self, row, blocks):
        for block in blocks:
            self.holders[block] += 1
        old, self.blocks[row] = self.blocks[row], list(blocks)
        for block in old:
            self._drop(block)

    def reassign(self, rows, parents):
        chosen = [list(self.blocks[parent]) for parent in parents]
        for block in {block for blocks in chosen for block in blocks}:
            self.holders[block] += 1
        for row, blocks in zip(rows, chosen, strict=True):
            self._hold(row, blocks)
        for block in {block for blocks in chosen for block in blocks}:
            self._drop(block)

    def truncate(self, row, n):
        self.length[row] -= n
        keep = -(-self.length[row] // self.t)
        for block in self.blocks[row][keep:]:
            self._drop(block)
        del self.blocks[row][keep:]

    def release(self, rows):
        for row in rows:
            for block in self.blocks.pop(row):
                self._drop(block)
            del self.length[row]


def structure(tables):
    """Name blocks by where they first stand: equal for tables that share blocks alike."""
    names = {}
    return {s: [names.setdefault(b, len(names)) for b in tables[s]] for s in sorted(tables)}


def compare(paged, oracle):
    tables = {
        s: paged.pages.table[s, : paged.pages.count[s]].tolist()
        for s in np.flatnonzero(paged.active).tolist()
    }
    assert structure(tables) == structure(oracle.blocks)
    assert {s: int(paged.length[s]) for s in tables} == oracle.length
    assert paged.balance()[2] == oracle.free
    held = {b: int(paged.pages.ref[b]) for blocks in tables.values() for b in blocks}
    assert sorted(held.values()) == sorted(oracle.holders.values())


@given(data=st.data(), block_size=st.sampled_from([1, 3, 4, 16]))
@settings(max_examples=120, derandomize=True, deadline=None, database=None)
def test_every_decision_is_that_of_the_oracle(data, block_size):
    paged = Paged(POOL, block_size=block_size)
    oracle = OraclePaged(90 // block_size, block_size)
    draw = data.draw
    for _ in range(draw(st.integers(1, 25))):
        live = sorted(oracle.length)
        idle = [s for s in range(6) if s not in oracle.length]
        name = draw(st.sampled_from(["admit", "grow", "grow", "fork", "reassign", "cut", "end"]))
        if name == "admit" and idle:
            rows = idle[: draw(st.integers(1, 3))]
            prompt, private = draw(st.integers(1, 30)), draw(st.integers(0, 10))
            demand = Demand(prompt, private + 1, private)
            try:
                granted = paged.admit(np.array(rows), Prompt(prompt), demand) is not None
            except NeverFits:
                granted = False
            assert granted == oracle.attempt("admit", rows, prompt, private)
        elif name == "grow" and live:
            rows = draw(st.lists(st.sampled_from(live), min_size=1, unique=True))
            most = 40 - max(oracle.length[s] for s in rows)
            if most:
                n = draw(st.integers(1, most))
                granted = paged.grow(np.array(rows), n) is not None
                assert granted == oracle.attempt("grow", rows, n)
        elif name == "fork" and live and idle:
            parent, children = draw(st.sampled_from(live)), idle[: draw(st.integers(1, 2))]
            paged.fork(parent, np.array(children), Demand(1, 1))
            oracle.fork(parent, children)
        elif name == "reassign" and live:
            length = oracle.length[draw(st.sampled_from(live))]
            rows = [s for s in live if oracle.length[s] == length]
            parents = [draw(st.sampled_from(rows)) for _ in rows]
            paged.reassign(np.array(rows), np.array(parents))
            oracle.reassign(rows, parents)
        elif name == "cut" and live:
            row = draw(st.sampled_from(live))
            if oracle.length[row] > 1:
                n = draw(st.integers(1, oracle.length[row] - 1))
                paged.truncate(row, n)
                oracle.truncate(row, n)
        elif name == "end" and live:
            rows = draw(st.lists(st.sampled_from(live), min_size=1, unique=True))
            paged.release(np.array(rows))
            oracle.release(rows)
        compare(paged, oracle)


@pytest.mark.parametrize("block_size", [1, 7, 16, 128, 512])
def test_a_sequence_wastes_less_than_one_block(block_size):
    pool = Geometry(capacity_tokens=8192, max_seqs=8, max_len=1024)
    paged = Paged(pool, block_size=block_size)
    rng = np.random.default_rng(0)
    for row in range(8):
        paged.admit(np.array([row]), Prompt(int(rng.integers(1, 400))), Demand(400, 600))
    rows = np.arange(8)
    for _ in range(100):
        paged.grow(rows)
        usage = paged.usage(rows, np.full(8, 1024))
        unused = int(usage.reserved[0] + usage.internal[0])
        assert unused < 8 * block_size * pool.bytes_per_token
        exact = (-paged.length[rows] % block_size).sum() * pool.bytes_per_token
        assert unused == exact


def test_admission_leaves_the_watermark_free_but_growth_may_use_it():
    paged = Paged(Geometry(100, 4, 100), block_size=10, watermark=0.2)
    paged.admit(np.array([0]), Prompt(70), Demand(70, 30))
    assert paged.admit(np.array([1]), Prompt(20), Demand(20, 2)) is None
    assert paged.admit(np.array([1]), Prompt(10), Demand(10, 2)) is not None
    assert paged.headroom(np.array([0])) == 20


def test_an_empty_pool_is_given_whole_whatever_the_watermark():
    """Beside nobody there is no growth to keep blocks free for."""
    paged = Paged(Geometry(100, 4, 100), block_size=10, watermark=0.2)
    assert paged.admit(np.array([0]), Prompt(100), Demand(100, 1)) is not None
    paged.release(np.array([0]))
    assert paged.admit(np.array([0]), Prompt(90), Demand(90, 1)) is not None
    assert paged.admit(np.array([1]), Prompt(10), Demand(10, 1)) is None


def test_the_tail_of_a_pool_that_holds_no_whole_block_is_free_but_never_given():
    paged = Paged(Geometry(19, 2, 19), block_size=10)
    with pytest.raises(NeverFits, match="2 blocks of 10 tokens"):
        paged.admit(np.array([0]), Prompt(11), Demand(11, 1))
    assert paged.usage(np.arange(0), np.arange(0)).free[0] == 19 * paged.geometry.bytes_per_token


def test_a_group_that_diverged_copies_from_where_the_prompt_is_written():
    """Regression: the parent gave its partly filled block away before it was written."""
    paged = Paged(POOL, block_size=8)
    grant = paged.admit(np.array([0, 1, 2]), Prompt(12), Demand(12, 20, 3))
    tail = int(paged.addresses(0)[8])
    assert grant.copies[:, 0].tolist() == [tail, tail]
    assert grant.copies[:, 2].tolist() == [4, 4]


def test_tokens_of_a_shared_block_count_once_whoever_fills_it_furthest():
    """Regression: a truncated row hid slots that another row still reads."""
    paged = Paged(POOL, block_size=8)
    paged.admit(np.array([0, 1]), Prompt(8), Demand(8, 20))
    paged.truncate(1, 3)
    both = np.array([0, 1])
    usage = paged.usage(both, np.array([8, 8]))
    assert int(usage.token[0]) == 8 * paged.geometry.bytes_per_token
    assert int(usage.reserved[0]) == int(usage.internal[0]) == 0
