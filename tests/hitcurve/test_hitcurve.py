"""The hit curve: one pass against brute force, the policies against slow ones, real traces."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from allocators.prefix.orders import FifoOrder, LfuOrder
from allocators.prefix.pool import Order
from allocators.prefix.s3fifo import S3FifoOrder
from harness.errors import ConfigError
from harness.hitcurve.__main__ import main
from harness.hitcurve.curve import default_capacities, lru_counts
from harness.hitcurve.distances import NEVER, lru_hits, smaller_before, stack_distances
from harness.hitcurve.policies import POLICIES, Cache, hits
from harness.hitcurve.trace import BlockTrace, block_trace
from workloads.formats import read

MOONCAKE = "mooncake/conversation_trace.jsonl.gz"
AGENTIC = "kv-cache-tester/traces"

#: percent of prompt blocks that hit at so many blocks (None: unbounded); see docs/validation.md
PUBLISHED = {
    1_000: 4.447, 10_000: 21.116, 30_000: 32.571, 50_000: 35.456, 100_000: 36.369, None: 36.641,
}  # fmt: skip


def random_trace(seed: int) -> BlockTrace:
    """Prompts that branch off each other, of 0 to 12 blocks."""
    rng = np.random.default_rng(seed)
    prompts: list[list[int]] = [[]]
    fresh = 0
    for _ in range(int(rng.integers(1, 60))):
        stem = prompts[int(rng.integers(len(prompts)))]
        stem = stem[: int(rng.integers(len(stem) + 1))]
        own = int(rng.integers(0, 12 - min(len(stem), 11)))
        prompts.append([*stem, *range(fresh, fresh + own)])
        fresh += own
    counts = np.array([len(p) for p in prompts])
    blocks = np.array([b for p in prompts for b in p], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return BlockTrace(blocks, starts, len(np.unique(blocks)), 16)


def brute_force(trace: BlockTrace, capacity: int, deepest_first: bool) -> int:
    held: list[int] = []  # least recent first
    count = 0
    for prompt in trace.requests():
        run = [block in held for block in prompt]
        count += run.index(False) if False in run else len(run)
        for block in prompt[::-1] if deepest_first else prompt:
            if block in held:
                held.remove(block)
            held = [*held, block][-capacity:]
    return count


class Lru(Cache):
    """What the one pass replaces, to be run request by request as the other policies are."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.held: list[int] = []

    def __contains__(self, block: int) -> bool:
        return block in self.held

    def hit(self, block: int) -> None:
        self.held.remove(block)
        self.held.append(block)

    def insert(self, block: int) -> None:
        self.held = [*self.held, block][-self.capacity :]


@pytest.mark.parametrize("deepest_first", [False, True])
def test_one_pass_counts_what_an_lru_cache_of_each_size_does(deepest_first):
    capacities = np.arange(1, 40)
    total = 0
    for seed in range(60):
        trace = random_trace(seed)
        expected = [brute_force(trace, c, deepest_first) for c in capacities.tolist()]
        assert lru_hits(trace, capacities, deepest_first).tolist() == expected
        simulated = [hits(trace, Lru(c), deepest_first) for c in (1, 3, 10, 39)]
        assert simulated == [expected[c - 1] for c in (1, 3, 10, 39)]
        total += sum(expected)
    assert total > 1000


def test_distances_of_a_small_example():
    trace = BlockTrace(np.array([0, 1, 2, 0, 1, 3, 0]), np.array([0, 3, 6, 7]), 4, 16)
    assert stack_distances(trace, False).tolist() == [NEVER, NEVER, NEVER, 3, 2, NEVER, 3]
    assert stack_distances(trace, True).tolist() == [NEVER, NEVER, NEVER, 1, 2, NEVER, 1]


def test_a_block_that_repeats_in_its_prompt_is_refused():
    with pytest.raises(ValueError, match="twice"):
        stack_distances(BlockTrace(np.array([4, 4]), np.array([0, 2]), 1, 16), False)


def test_smaller_before_weighs_strictly_smaller_earlier_values():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        values = rng.integers(-1, 30, int(rng.integers(0, 70)))
        weights = rng.integers(1, 5, len(values))
        expected = [int(weights[:i][values[:i] < values[i]].sum()) for i in range(len(values))]
        assert smaller_before(values, weights).tolist() == expected


class AllocatorCache(Cache):
    """An eviction order of the allocators, of pages that nobody holds for long."""

    def __init__(self, order: type[Order], capacity: int) -> None:
        super().__init__(capacity)
        self.order, self.page_of, self.block_of = order(capacity), {}, {}

    def __contains__(self, block: int) -> bool:
        return block in self.page_of

    def hit(self, block: int) -> None:
        page = self.page_of[block]
        self.order.hit([page])
        self.order.freed([page])

    def insert(self, block: int) -> None:
        page = len(self.page_of)
        if page == self.capacity:
            page = self.order.victims(1)[0]
            del self.page_of[self.block_of[page]]
        self.page_of[block], self.block_of[page] = page, block
        self.order.inserted([page], [block])
        self.order.free[page] = True
        self.order.freed([page])


@pytest.mark.parametrize(
    ("policy", "order"), [("fifo", FifoOrder), ("lfu", LfuOrder), ("s3fifo", S3FifoOrder)]
)
def test_policies_hold_what_the_orders_of_the_allocators_keep(policy, order):
    evictions = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        capacity = int(rng.integers(1, 25))
        caches = POLICIES[policy](capacity), AllocatorCache(order, capacity)
        for block in (rng.zipf(1.3, 600) % 60).tolist():
            full = sum(b in caches[0] for b in range(60)) == capacity
            evictions += full and block not in caches[0]
            for cache in caches:
                (cache.hit if block in cache else cache.insert)(block)
            assert [b in caches[0] for b in range(60)] == [b in caches[1] for b in range(60)]
    assert evictions > 1000


@pytest.mark.shared_data
def test_the_published_table_of_mooncake_comes_out_to_the_digit(shared_file, tmp_path, capsys):
    trace = shared_file(MOONCAKE)
    bounds = [c for c in PUBLISHED if c is not None]
    assert main([f"workload.path={trace}", f"capacities={bounds}", f"out={tmp_path}"]) == 0
    with open(tmp_path / "hitcurve.csv") as stream:
        rows = list(csv.DictReader(stream))
    found = {r["capacity_blocks"]: f"{100 * float(r['hit_rate']):.3f}" for r in rows}
    expected = {"inf" if c is None else str(c): f"{rate:.3f}" for c, rate in PUBLISHED.items()}
    assert found == expected
    record = json.loads((tmp_path / "hitcurve.json").read_text())
    assert (record["requests"], record["blocks"]) == (12_031, 288_500)
    assert (tmp_path / "hitcurve.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert all(f"{rate:.3f}" in shown for rate in PUBLISHED.values())


@pytest.mark.shared_data
def test_deepest_first_gains_almost_nothing_on_mooncake(shared_file):
    trace = block_trace(read(shared_file(MOONCAKE)), None)
    plain, deepest = (lru_hits(trace, np.array([10_000]), d)[0] for d in (False, True))
    assert 0 <= 100 * (deepest - plain) / len(trace.blocks) < 0.1


@pytest.mark.shared_data
def test_deepest_first_gains_four_to_five_points_on_the_agentic_traces(shared_file):
    trace = block_trace(read(shared_file(AGENTIC)), None)
    plain, deepest = (lru_hits(trace, np.array([10_000]), d)[0] for d in (False, True))
    assert 4 <= 100 * (deepest - plain) / len(trace.blocks) <= 5


def write_trace(path: Path, hash_ids: list[list[int]]) -> Path:
    lines = [
        json.dumps({
            "timestamp": 0, "input_length": 512 * len(ids), "output_length": 1, "hash_ids": ids,
        })
        for ids in hash_ids
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_policy_and_order_is_a_line_of_the_table_and_the_csv(tmp_path, capsys):
    trace = write_trace(tmp_path / "t.jsonl", [[0, 1, 2], [0, 1, 3], [4, 5], [0, 1, 2]])
    policies = ["lru", "lfu", "fifo", "s3fifo"]
    options = ["capacities=[3,100]", f"policies=[{','.join(policies)}]", "order=both"]
    assert main([f"workload.path={trace}", f"out={tmp_path / 'o'}", *options]) == 0
    rows = list(csv.DictReader((tmp_path / "o" / "hitcurve.csv").read_text().splitlines()))
    assert len(rows) == 4 * 2 * 3
    unbounded = {r["hits"] for r in rows if r["capacity_blocks"] in ("100", "inf")}
    assert unbounded == {"5"}
    assert "s3fifo, deepest first" in capsys.readouterr().out


def test_a_capacity_beyond_every_number_of_blocks_is_an_unbounded_cache(tmp_path):
    trace = block_trace(read(write_trace(tmp_path / "t.jsonl", [[0, 1], [0, 1], [2]])), None)
    assert lru_counts(trace, [2**63 - 1, 2**63, 2**70, None], False) == [2] * 4


def test_capacities_come_from_the_trace_and_their_columns_differ(tmp_path, capsys):
    # 340 blocks, each asked for again at a distance of its own.
    again = [[block] for size in (5, 30, 80, 225) for block in range(size)]
    trace = write_trace(tmp_path / "t.jsonl", [[b] for b in range(340)] + again)
    assert main([f"workload.path={trace}", f"out={tmp_path / 'o'}"]) == 0
    with open(tmp_path / "o" / "hitcurve.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["capacity_blocks"] for r in rows] == ["3", "7", "17", "34", "68", "170", "inf"]
    assert len({r["hits"] for r in rows}) > 3
    assert max(map(len, capsys.readouterr().out.splitlines()[:4])) <= 80
    assert default_capacities(1) == [1]
    assert default_capacities(182_790) == [1_800, 3_700, 9_100, 18_000, 37_000, 91_000]


@pytest.mark.filterwarnings("error")
def test_a_trace_of_which_nothing_hits_is_drawn(tmp_path):
    trace = write_trace(tmp_path / "t.jsonl", [[0], [1]])
    assert main([f"workload.path={trace}", f"out={tmp_path / 'o'}"]) == 0
    assert (tmp_path / "o" / "hitcurve.png").exists()


def test_keys_of_a_trace_can_be_named(tmp_path, capsys):
    trace = tmp_path / "ids.jsonl"
    lines = [
        {"id": i, "prompt_token_ids": [1] * 16, "output_len": 1, "time": 2 - i} for i in range(2)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [f"workload.path={trace}", f"out={tmp_path / 'o'}"]
    assert main(arguments) == 2
    assert "'time' seems to say when a request came" in capsys.readouterr().err
    assert main([*arguments, "workload.columns.arrival=time"]) == 0


@pytest.mark.parametrize("policy", ["lru", "fifo"])
def test_a_hash_id_twice_in_one_prompt_is_refused_by_name(policy, tmp_path, capsys):
    trace = write_trace(tmp_path / "t.jsonl", [[0, 1], [1, 0], [2, 3, 2]])
    arguments = [f"workload.path={trace}", f"policies=[{policy}]", f"out={tmp_path / 'o'}"]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: workload.path: request '2' has a hash id twice")
    assert captured.err.count("\n") == 1


def test_blocks_can_be_regrouped_and_split(tmp_path):
    table = read(write_trace(tmp_path / "t.jsonl", [[0, 1, 2], [0, 1, 3], [0, 4]]))
    assert block_trace(table, 1024).requests() == [[0], [0], [1]]
    assert [len(r) for r in block_trace(table, 128).requests()] == [12, 12, 8]
    assert block_trace(table, 128).distinct == 20
    with pytest.raises(ConfigError, match="block_tokens=100"):
        block_trace(table, 100)


def test_real_token_ids_are_cut_into_blocks(tmp_path):
    path = tmp_path / "t.jsonl"
    prompts = [list(range(40)), [*range(16), *range(90, 110)], [7] * 5]
    path.write_text("".join(
        json.dumps({"id": str(i), "prompt_token_ids": ids, "output_len": 1}) + "\n"
        for i, ids in enumerate(prompts)
    ))  # fmt: skip
    first, second, third = block_trace(read(path), None).requests()
    assert (len(first), len(second), third) == (2, 2, [])
    assert first[0] == second[0]
    assert first[1] != second[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "workload.path=FILE is needed"),
        (["nonsense"], "is not OPTION=VALUE"),
        (["workload.path=missing.jsonl"], "missing.jsonl"),
        (["workload.path=x", "capcities=[1]"], "did you mean capacities"),
        (["workload.path=x", "capacities=[a]"], "capacities"),
        (["workload.path=x", "capacities=[0]"], ">= 1"),
        (["workload.path=x", "capacities=[]"], "capacities=[]"),
        (["workload.path=x", "capacities=[1"], "cannot be read"),
        (["workload.path=x", "policies=[lruu]"], "did you mean lru"),
        (["workload.path=x", "order=up"], "touch, deepest_first, both"),
        (["workload.path=x", "block_tokens=0"], "block_tokens"),
        (["workload.path=x", "workload.speed=1"], "speed"),
        (["workload.path=x", "workload=3"], "workload"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, said, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_a_trace_without_identities_is_refused(tmp_path, capsys):
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n10,2\n")
    assert main([f"workload.path={path}"]) == 2
    assert "neither hash_ids nor token ids" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_computed(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("harness.hitcurve.__main__._run", lambda options, out: 0)
    assert main([f"workload.path={MOONCAKE}", f"out={tmp_path}/a/b"]) == 2
    assert f"{tmp_path} cannot be written" in capsys.readouterr().err
