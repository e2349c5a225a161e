"""`engine=chunked` with a paged allocator takes, step by step, what a literal model of it takes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.paged import Paged
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from harness.engine.setup import Setup
from tests.engine.schedulers.chunked.model import CannotFit, Model, Pool, Request
from tests.stories import tell
from workloads.requests import RequestTable

COLUMNS = (
    "running", "waiting", "batched_tokens", "blocks_in_use", "logical_blocks", "preemptions",
    "hit_tokens", "saturated",
)  # fmt: skip


@st.composite
def cases(draw, groups):
    """Draw prompts that share beginnings, pools of a few blocks, and budgets of a few tokens."""
    sequences = draw(st.integers(2, 4)) if groups else 1
    n = draw(st.integers(1, 9))
    stem = draw(st.lists(st.integers(0, 3), min_size=24, max_size=24))
    prompts = []
    for _ in range(n):
        shared = draw(st.integers(0, 24))
        own = draw(st.lists(st.integers(0, 3), min_size=0 if shared else 1, max_size=6))
        prompts.append(stem[:shared] + own)
    if draw(st.booleans()):  # all of one length, so that all need a block in the same step
        shortest = min(len(prompt) for prompt in prompts)
        prompts = [prompt[:shortest] for prompt in prompts]
    at_once = draw(st.booleans())
    gaps = [0] * n if at_once else draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    outputs = draw(st.lists(st.integers(1, 16), min_size=n, max_size=n))
    block = draw(st.integers(1, 5))
    most = max(
        len(p) // block + sequences * (-(-(len(p) + o - 1) // block) - len(p) // block)
        for p, o in zip(prompts, outputs, strict=True)
    )
    spare = draw(st.integers(-1, 6))
    return {
        "prompts": prompts,
        "outputs": outputs,
        "arrivals": np.cumsum(gaps),
        "block": block,
        "blocks": max(1, most + spare),
        "budget": draw(st.integers(sequences, 12) | st.integers(12, 60)),
        "max_seqs": draw(st.integers(sequences, 9 * sequences)),
        "sequences": sequences,
        "skip": draw(st.booleans()),
    }


class Recorder:
    """An executor of one second a step that keeps the block table of every running request."""

    def __init__(self, allocator, skips):
        self.skips, self.tables = skips, []
        self._allocator = allocator

    def step(self, plan, lengths):
        self._allocator.check()
        pages, running = self._allocator.pages, self.engine._scheduler.running
        assert len(lengths) == len(plan.rows)
        assert (self._allocator.length[plan.rows] >= lengths).all()
        tables = {}
        for index, row in zip(running.owner.tolist(), running.rows.tolist(), strict=True):
            tables.setdefault(index, []).append(pages.table[row, : pages.count[row]].tolist())
        self.tables.append(tables)
        return 1.0

    def map_s(self, grant):
        return 0.0

    def window(self, grants, lengths, steps):
        return np.ones(steps)


def run_engine(case, prefix_index, free_order):
    pool = Geometry(
        capacity_tokens=case["blocks"] * case["block"], max_seqs=case["max_seqs"], max_len=64
    )
    allocator = Paged(
        pool, block_size=case["block"], prefix_index=prefix_index, free_order=free_order
    )
    requests = RequestTable(
        arrival_s=case["arrivals"].astype(np.float64),
        prompt_tokens=np.array([len(prompt) for prompt in case["prompts"]]),
        output_tokens=np.array(case["outputs"]),
        token_ids=[np.array(prompt, dtype=np.int64) for prompt in case["prompts"]],
    )
    spec = EngineSpec(
        policy="chunked",
        max_num_seqs=case["max_seqs"],
        max_num_batched_tokens=case["budget"],
        skip_ahead=case["skip"],
    )
    recorder = Recorder(allocator, case["skip"])
    several = case["sequences"] > 1
    sampling = SamplingSpec("parallel", n=case["sequences"]) if several else SamplingSpec()
    engine = Engine(Setup(allocator, requests, sampling, spec, recorder, seed=0))
    recorder.engine = engine
    log = engine.run("paged")
    log.check()
    return log, recorder.tables, allocator.pages.free.pages().tolist()


def compare(case, prefix_index, free_order, seen):
    pool = Pool(case["blocks"], case["block"], prefix_index != "none", free_order == "by_age")
    requests = [
        Request(i, list(prompt), output, int(arrival), case["sequences"])
        for i, (prompt, output, arrival) in enumerate(
            zip(case["prompts"], case["outputs"], case["arrivals"], strict=True)
        )
    ]
    model = Model(requests, pool, case["budget"], case["max_seqs"])
    rows, held = [], []
    try:
        while model.to_come or model.waiting or model.running:
            row, blocks = model.step()
            rows.append(row)
            held.append(blocks)
    except CannotFit:
        seen["cannot fit"] += 1
        with pytest.raises(Unservable):
            run_engine(case, prefix_index, free_order)
        return
    log, tables, free = run_engine(case, prefix_index, free_order)
    assert log.steps == len(rows)
    for name in COLUMNS:
        assert log.timeline[name].tolist() == [row[name] for row in rows], name
    block_bytes = log.capacity_bytes // case["blocks"]
    assert log.timeline["cached_bytes"].tolist() == [r["cached"] * block_bytes for r in rows]
    copied = [r["copied_slots"] * block_bytes // case["block"] for r in rows]
    assert log.timeline["copied_bytes"].tolist() == copied
    if not case["skip"]:
        assert tables == held
    # The order of the free blocks at the end tells which block was taken when, skipped steps too.
    assert free == [block.number for block in pool.free]
    assert log.totals["wasted_tokens"] == model.wasted
    assert log.totals.get("evictions", 0) == pool.evictions
    seen += model.seen
    seen["evictions"] += pool.evictions
    seen["several preempted in a step"] += sum(row["preemptions"] > 1 for row in rows)
    seen["steps skipped"] += len(rows) - len(tables)
    seen["wasted"] += model.wasted


NEEDED = {
    "cannot fit", "preempted in its prompt", "preempted itself", "preempted with output",
    "several preempted in a step", "chunk of a running prompt", "only a piece would fit",
    "steps skipped", "wasted",
}  # fmt: skip
WITH_CACHE = {
    "hit on a referenced block", "hit on a cached block", "hit after a preemption", "evictions",
}  # fmt: skip
OF_SINGLES = {"hit on its own output"}
OF_GROUPS = {
    "fork", "fork after a preemption", "a fork left out", "a prompt left out", "copy-on-write",
    "copy-on-write in a step that preempts", "chunk of a group's output", "preempted while forked",
}  # fmt: skip


@pytest.mark.parametrize("groups", [False, True], ids=["singles", "groups"])
@pytest.mark.parametrize(
    ("prefix_index", "free_order"),
    [("none", "unkeyed_first"), ("hash", "unkeyed_first"), ("hash", "by_age")],
)
def test_every_step_is_that_of_the_model(prefix_index, free_order, groups):
    needed = NEEDED | (OF_GROUPS if groups else set())
    if prefix_index == "hash":
        needed = needed | WITH_CACHE | (set() if groups else OF_SINGLES)
    seen = Counter()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(case=cases(groups))
    def check(case):
        compare(case, prefix_index, free_order, seen)

    tell(check, lambda: all(seen[what] for what in needed))
    missing = {what for what in needed if not seen[what]}
    assert not missing, f"never happened: {missing}, of {dict(seen)}"
