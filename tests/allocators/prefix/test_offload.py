"""Evicted blocks are saved in host memory and found there; a hit holds exactly its tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Grant, Prompt, Unsupported
from allocators.paged import Paged
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from tests.allocators.prefix.streams import Streams
from workloads.requests import RequestTable

SIZE = 4
MODEL = ModelShape("toy", "llama", 2, 256, 4, 4, 64, 512, 1000, 512)
HARDWARE = HardwareSpec("toy", 1, 100, 1, 16, 16)


def pool(blocks: int, host_blocks: int, offload: bool = True, **knobs) -> Paged:
    geometry = Geometry(
        blocks * SIZE, max_seqs=16, max_len=96, layers=2, kv_heads=4, head_dim=64,
        host_tokens=host_blocks * SIZE,
    )  # fmt: skip
    knobs = {"prefix_index": "hash", "block_size": SIZE} | knobs
    return Paged(geometry, offload=offload, **knobs)


def array(*rows: int) -> np.ndarray:
    return np.array(rows)


class Memory:
    """Device and host as dicts of slot -> what its KV was computed from: all tokens up to it."""

    def __init__(self, real: Paged) -> None:
        self.real, self.host_slots = real, real.geometry.host_tokens
        self.device: dict[int, object] = {}
        self.host: dict[int, object] = {}
        self.stream: dict[int, list[int]] = {}  # of each live sequence, what it will hold
        self.tickets: dict[int, list[int]] = {}
        self.saw: Counter[str] = Counter()
        self.unique = iter(range(-(10**9), 0))

    def execute(self, grant: Grant) -> None:
        for swaps, source, target in (
            (grant.swaps_out, self.device, self.host),
            (grant.swaps_in[:, [1, 0, 2]], self.host, self.device),
        ):
            moves = {
                to + i: source.get(at + i) for at, to, n in swaps.tolist() for i in range(n)
            }  # all are read before any is written
            assert len(moves) == int(swaps[:, 2].sum()), "two blocks are moved to one place"
            target.update(moves)
        for at, to, n in grant.copies.tolist():
            self.device.update({to + i: self.device.get(at + i) for i in range(n)})
        assert len(self.host) <= self.host_slots
        assert all(0 <= slot < self.host_slots for slot in self.host)

    def write(self, row: int, start: int) -> None:
        stream = self.stream[row]
        slots = self.real.addresses(row).tolist()
        while len(stream) < len(slots):
            stream.append(next(self.unique))
        for position in range(start, len(slots)):
            self.device[slots[position]] = tuple(stream[: position + 1])

    def verify(self) -> None:
        for row, stream in self.stream.items():
            for position, slot in enumerate(self.real.addresses(row).tolist()):
                assert self.device[slot] == tuple(stream[: position + 1]), (row, position)
        self.real.check()

    # -- calls -------------------------------------------------------------------------------
    def admit(self, row: int, tokens: int, ids: np.ndarray) -> int | None:
        prompt = Prompt(tokens, ids)
        expected, before = self.real.lookup(prompt), self.real.prefix_stats.fetched_blocks
        grant = self.real.admit(array(row), prompt, Demand(tokens, 1))
        if grant is None:
            self.saw["refusals"] += 1
            return None
        assert grant.cached_tokens == expected < tokens
        self.execute(grant)
        self.stream[row] = ids.tolist()
        fetched = self.real.prefix_stats.fetched_blocks - before
        assert len(grant.swaps_in) == fetched
        self.saw["fetched"] += fetched
        self.saw["fetched behind the device's"] += bool(fetched) and fetched * SIZE < expected
        self.saw["saved and fetched at once"] += bool(fetched) and len(grant.swaps_out) > 0
        self.write(row, expected)
        return expected

    def grow(self, rows: list[int], n: int) -> None:
        starts = self.real.length[rows].tolist()
        grant = self.real.grow(np.array(rows), n)
        if grant is None:
            self.saw["refusals to grow"] += 1
            return
        self.saw["saved by growth"] += len(grant.swaps_out)
        self.execute(grant)
        for row, start in zip(rows, starts, strict=True):
            self.write(row, start)

    def release(self, row: int) -> None:
        self.execute(self.real.release(array(row)))
        del self.stream[row]

    def truncate(self, row: int, n: int) -> None:
        self.execute(self.real.truncate(row, n))
        del self.stream[row][int(self.real.length[row]) :]

    def suspend(self, row: int, ticket: int) -> None:
        grant = self.real.suspend(array(row), ticket)
        if grant is not None:
            self.execute(grant)
            self.tickets[ticket] = self.stream.pop(row)
            self.saw["suspended"] += 1

    def resume(self, row: int, ticket: int) -> None:
        grant = self.real.resume(array(row), ticket)
        if grant is not None:
            self.execute(grant)
            self.stream[row] = self.tickets.pop(ticket)
            self.saw["resumed"] += 1
            self.saw["saved by a resume"] += len(grant.swaps_out)


@pytest.mark.parametrize("host_blocks", [2, 9, 60])
def test_every_hit_holds_exactly_its_tokens_wherever_it_came_from(host_blocks):
    saw: Counter[str] = Counter()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        memory = Memory(pool(14, host_blocks))
        streams = Streams()
        for step in range(150):
            live = list(memory.stream)
            idle = [s for s in range(16) if s not in live]
            what = int(rng.integers(0, 12))
            if what < 4 and len(live) < 6:
                tokens = int(rng.integers(1, 30))
                ids = streams.make(int(rng.integers(4)), int(rng.integers(30)), tokens + 6)
                memory.admit(idle[int(rng.integers(len(idle)))], tokens, ids)
            elif what < 7 and live:
                some = [s for s in live if rng.integers(3) and memory.real.length[s] < 80]
                if some:
                    memory.grow(some, int(rng.integers(1, 6)))
            elif what < 9 and live:
                memory.release(live[int(rng.integers(len(live)))])
            elif what == 9 and live:
                row = live[int(rng.integers(len(live)))]
                memory.truncate(row, int(rng.integers(0, min(7, int(memory.real.length[row])))))
            elif what == 10 and live:
                memory.suspend(live[int(rng.integers(len(live)))], step)
            elif memory.tickets:
                memory.resume(idle[0], next(iter(memory.tickets)))
            memory.verify()
        memory.saw["saved"] = memory.real.prefix_stats.offloaded_blocks
        saw += memory.saw
    expected = ["refusals", "refusals to grow", "saved", "fetched", "saved by growth", "suspended"]
    expected += ["resumed", "saved and fetched at once", "fetched behind the device's"]
    expected += ["saved by a resume"] * (host_blocks > 2)
    for name in expected:
        assert saw[name] > 0, f"the pools were never so tight that there were {name}: {saw}"


def prefill(memory: Memory, family: int, blocks: int) -> int | None:
    """Admit and end a prompt that hits `blocks` blocks if all are cached."""
    ids = np.arange(blocks * SIZE + 1) + 1000 * family
    hit = memory.admit(0, len(ids), ids)
    memory.release(0)
    return hit


def prefilled(host_blocks: int, families: int) -> Memory:
    """Of the families 1, 2, .. a prompt of four blocks each, in a device of five pages."""
    memory = Memory(pool(5, host_blocks))
    for family in range(1, families + 1):
        prefill(memory, family, 4)
    return memory


def test_a_block_goes_to_the_host_with_its_page_and_comes_back():
    memory = Memory(pool(5, 8))
    assert [prefill(memory, 1, 4), prefill(memory, 2, 4)] == [0, 0]
    assert memory.real.prefix_stats.offloaded_blocks == 4
    assert prefill(memory, 1, 4) == 16
    stats = memory.real.prefix_stats
    # The second prompt's blocks have made way in turn; those fetched are in host memory no more.
    assert (stats.fetched_blocks, stats.offloaded_blocks, stats.hit_tokens) == (4, 8, 16)
    memory.verify()


def test_a_block_with_another_copy_on_the_device_is_not_saved():
    memory = Memory(pool(8, 8))
    ids = np.arange(8)
    for row in (0, 1):  # the last block of a whole prompt is computed again
        memory.admit(row, 8, ids)
    for row in (0, 1):
        memory.release(row)
    memory.admit(2, 24, np.arange(24) + 5000)  # five unused pages and the first copy
    assert memory.real.evictions == 1
    assert memory.real.prefix_stats.offloaded_blocks == 0
    memory.verify()


def test_a_full_tier_drops_what_it_got_first():
    memory = prefilled(host_blocks=4, families=3)
    ids = np.arange(17)
    assert memory.real.lookup(Prompt(17, ids + 1000)) == 0
    assert memory.real.lookup(Prompt(17, ids + 2000)) == 16
    assert memory.real.lookup(Prompt(17, ids + 3000)) == 16
    memory.verify()


def test_suspended_sequences_come_before_saved_blocks():
    memory = prefilled(host_blocks=5, families=2)
    memory.admit(3, 17, np.arange(17) + 3000)
    memory.suspend(3, 7)
    assert memory.saw["suspended"] == 1
    prefill(memory, 4, 4)  # no host page is left to save anything in
    memory.resume(3, 7)
    assert memory.saw["resumed"] == 1
    memory.verify()


def test_a_refusal_changes_nothing_in_either_tier():
    memory = prefilled(host_blocks=8, families=2)
    memory.admit(5, 8, np.arange(8) + 9000)
    ids = np.arange(17) + 1000
    before = memory.real.lookup(Prompt(17, ids))
    assert before == 16
    assert memory.admit(0, 17, ids) is None
    assert memory.real.lookup(Prompt(17, ids)) == before
    memory.verify()


@pytest.mark.parametrize("free_order", ["unkeyed_first", "by_age"])
def test_taking_a_cached_page_is_an_operation_and_a_blank_one_is_not(free_order):
    memory = Memory(pool(6, 8, free_order=free_order))
    prefill(memory, 1, 2)  # two blocks are cached, its last page is blank and three are unused
    memory.admit(1, 4, np.arange(4) + 5000)
    assert memory.real.headroom(array(1)) == 5 * SIZE
    quiet = memory.real.quiet_steps(array(1), 50)
    assert quiet == 3 * SIZE  # the queue is [blank, blank, blank, cached, cached]
    assert not len(memory.real.grow(array(1), quiet).swaps_out)
    assert len(memory.real.grow(array(1), 1).swaps_out) == 1


@pytest.mark.parametrize(
    "knobs", [{"prefix_index": "none"}, {"prefix_index": "radix"}, {"eviction": "lfu"}]
)
def test_what_cannot_save_single_blocks_says_so(knobs):
    with pytest.raises(Unsupported, match="one by one"):
        pool(5, 5, **knobs)


def test_offload_wants_host_memory_and_a_truth_value():
    with pytest.raises(Unsupported, match="host_gib"):
        pool(5, 0)
    with pytest.raises(ValueError, match="true or false"):
        pool(5, 5, offload=1)


# -- through the engine ----------------------------------------------------------------------
def loop(requests: int = 60) -> RequestTable:
    """Prompts that begin with one of six prefixes of 32 tokens in turn, and end in their own."""
    rng = np.random.default_rng(4)
    outputs = rng.integers(1, 24, requests)
    token_ids = [
        np.concatenate([np.arange(32) + 1000 * (i % 6), 10**6 + 100 * i + np.arange(5)])
        for i in range(requests)
    ]
    lengths = np.full(requests, 37)
    return RequestTable(np.arange(requests) * 1e-4, lengths, outputs, token_ids=token_ids)


def serve(memory: Paged, skip: bool = True, **engine):
    spec = EngineSpec(max_num_seqs=16, skip_ahead=skip, **engine)
    executor = SimulatedExecutor(Roofline(MODEL, HARDWARE, CostSpec()), memory)
    log = Engine(Setup(memory, loop(), SamplingSpec("greedy", 1, 1), spec, executor, 0)).run("x")
    log.check()
    memory.check()
    assert memory.balance()[0] == 0
    return log


@pytest.mark.parametrize(
    "engine",
    [{}, {"policy": "chunked"}, {"preemption": "swap"}, {"policy": "static"}, {"policy": "orca"}],
    ids=str,
)
@pytest.mark.parametrize(
    ("host_blocks", "free_order"), [(6, "unkeyed_first"), (200, "unkeyed_first"), (200, "by_age")]
)
def test_skipping_ahead_changes_no_bit(engine, host_blocks, free_order):
    memories = tuple(pool(40, host_blocks, free_order=free_order) for _ in range(2))
    fast, slow = (
        serve(memory, skip, **engine)
        for memory, skip in zip(memories, (True, False), strict=True)
    )  # fmt: skip
    for columns in ("timeline", "requests"):
        for name, values in getattr(fast, columns).items():
            assert np.array_equal(values, getattr(slow, columns)[name]), name
    assert fast.totals["swapped_bytes"] == slow.totals["swapped_bytes"] > 0
    assert memories[0].prefix_stats == memories[1].prefix_stats
    assert memories[0].prefix_stats.offloaded_blocks > 0


def test_a_loop_that_does_not_fit_the_device_hits_in_host_memory():
    found = {}
    for host_blocks in (0, 16, 200):
        memory = pool(40, host_blocks, offload=host_blocks > 0)
        log = serve(memory)
        stats = memory.prefix_stats
        assert stats.evictions > 100, "the pool was never full"
        assert (log.totals["swapped_bytes"] > 0) == (host_blocks > 0)
        found[host_blocks] = stats.hit_tokens / stats.lookup_tokens
    assert found[0] <= found[16] <= found[200]
    assert found[200] > found[0] + 0.2
