"""A hit names slots that hold exactly those tokens, whatever index and eviction order."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest

from allocators.base import Demand, NeverFits, Prompt
from harness.conformance import SMALL_GEOMETRY
from harness.conformance.schedule import drive
from tests.allocators.prefix.streams import (
    COMBINATIONS,
    Streams,
    grown_one_by_one,
    pool,
    serve_some,
)


class Contents:
    """What each slot holds: the whole prefix up to its token, as its KV depends on it."""

    def __init__(self, real) -> None:
        self.real = real
        self.slots: list[tuple | None] = [None] * real.geometry.capacity_tokens
        self.said: dict[int, list[int]] = {}  # what each sequence really holds
        self.promised: dict[int, np.ndarray] = {}

    def write(self, row: int, start: int) -> None:
        where = self.real.addresses(row)
        for at in range(start, len(self.said[row])):
            self.slots[where[at]] = tuple(self.said[row][: at + 1])

    def read_back(self) -> None:
        for row, tokens in self.said.items():
            where = self.real.addresses(row)
            assert len(where) == len(tokens)
            for at in range(len(tokens)):
                assert self.slots[where[at]] == tuple(tokens[: at + 1])


def exercise(index: str, eviction: str, seed: int, saw: Counter[str]) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 5))
    real = pool(int(rng.integers(8, 24)), size, index, eviction)
    contents, streams = Contents(real), Streams()
    total = sum(real.balance())
    for _ in range(120):
        live = list(contents.said)
        kind = rng.choice(["admit", "grow", "release", "truncate"], p=[0.4, 0.4, 0.17, 0.03])
        if kind == "admit" and len(live) < 8:
            row = min(set(range(8)) - set(live))
            tokens = int(rng.integers(1, 6 * size + 1))
            ids = streams.make(int(rng.integers(3)), int(rng.integers(6 * size + 1)), 12 * size)
            try:
                grant = real.admit(np.array([row]), Prompt(tokens, ids), Demand(tokens, 1))
            except NeverFits:
                continue
            if grant is None:
                saw["refusals"] += 1
                continue
            contents.said[row] = ids[:tokens].tolist()
            contents.promised[row] = ids
            where, hit = real.addresses(row), grant.cached_tokens
            assert hit < tokens
            assert hit % size == 0
            for at in range(hit):
                assert contents.slots[where[at]] == tuple(ids[: at + 1].tolist())
            contents.write(row, hit)
            saw["hits"] += hit > 0
        elif kind == "grow" and live:
            rows = [r for r in live if len(contents.said[r]) < 12 * size]
            n = min([3, *(12 * size - len(contents.said[r]) for r in rows)])
            if not rows or real.grow(np.array(rows), n) is None:
                continue
            for row in rows:
                start = len(contents.said[row])
                contents.said[row] += contents.promised[row][start : start + n].tolist()
                contents.write(row, start)
        elif kind == "release" and live:
            row = live[int(rng.integers(len(live)))]
            real.release(np.array([row]))
            del contents.said[row]
        elif kind == "truncate" and live:
            row = live[int(rng.integers(len(live)))]
            if len(contents.said[row]) > 1:
                n = int(rng.integers(1, len(contents.said[row])))
                real.truncate(row, n)
                contents.said[row] = contents.said[row][:-n]
                # What comes now is not what was announced.
                contents.promised[row] = streams.make(9, 0, 12 * size)
                saw["truncations"] += 1
                # It would be copied on write if shared; growth by one shows who holds it.
                if len(real.pages.to_copy(np.array([row]), real.length[[row]])):
                    real.release(np.array([row]))
                    del contents.said[row]
        contents.read_back()
        real.check()
        assert sum(real.balance()) == total
    saw["evictions"] += real.evictions
    real.release(np.array(list(contents.said), dtype=np.int64))
    active, cached, free = real.balance()
    assert active == 0
    usage = real.usage(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    block_bytes = size * real.geometry.bytes_per_token
    assert (int(usage.cached[0]), int(usage.free[0])) == (cached * block_bytes, free * block_bytes)


@pytest.mark.parametrize(("index", "eviction"), COMBINATIONS)
def test_hit_slots_hold_exactly_those_tokens(index, eviction):
    saw: Counter[str] = Counter()
    for seed in range(12):
        exercise(index, eviction, seed, saw)
    for what in ("hits", "evictions", "refusals", "truncations"):
        assert saw[what] > 0, f"no {what} in the whole run: {saw}"


#: the other sizes in each run with the default order of eviction, else with `further`
SIZED = [
    pytest.param(
        size, *kind, id=f"{size}-{'-'.join(kind)}",
        marks=[pytest.mark.further] if size != 4 and kind[1] != "lru" else [],
    )
    for size in (1, 4, 16)
    for kind in COMBINATIONS
]  # fmt: skip


@pytest.mark.parametrize(("block_size", "index", "eviction"), SIZED)
def test_every_invariant_holds_with_forks_and_beams(index, eviction, block_size):
    knobs = {"block_size": block_size, "prefix_index": index, "eviction": eviction}
    counts: Counter[str] = Counter()

    def make():
        from allocators.paged import Paged

        return Paged(SMALL_GEOMETRY, **knobs)

    for seed in (11, 12):
        trial = drive(make, seed, 150)
        counts += trial.counts
        counts["evictions"] += trial.allocator.evictions
    assert counts["hits"]
    assert counts["refusals"]
    assert counts["evictions"]


def state(real) -> dict:
    """Everything that later decisions can depend on."""
    index = real.index
    kept = {
        "table": real.pages.table.tolist(),
        "free": real.pages.free.pages().tolist(),
        "keyed": index._pool.keyed.tolist(),
        "named": sorted(index._page_of.items()),
        "more": sorted(getattr(index, "_more", {}).items()),
        "evictions": real.evictions,
    }
    drained = copy.deepcopy(real)
    kept["order"] = [drained.pages.free.take(1).tolist() for _ in range(len(drained.pages.free))]
    return kept


@pytest.mark.parametrize(("index", "eviction"), COMBINATIONS)
def test_a_quiet_window_ends_and_accounts_as_single_steps_do(index, eviction):
    windows = evicting = 0
    for seed in range(30):
        real = pool(16, 3, index, eviction)
        rows = serve_some(real, np.random.default_rng(seed))
        room = 36 - int(real.length[rows].max())
        steps = real.quiet_steps(rows, min(9, room))
        if steps < 2:
            continue
        windows += 1
        finals = real.length[rows] + 12
        single = grown_one_by_one(real, rows, finals, steps, state)
        evicting += single.evictions > real.evictions
    assert windows
    if (index, eviction) in (("hash", "lru"), ("hash", "lfu"), ("hash", "fifo")):
        assert evicting, "no window evicted a block"
