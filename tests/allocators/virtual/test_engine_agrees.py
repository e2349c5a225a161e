"""Our engine on `Virtual` against the slow scheduler on the slow manager, step by step."""

import sys

import numpy as np
import pytest

from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from tests.allocators.virtual.replay import virtual
from tests.allocators.virtual.slow_manager import Shape, SlowManager
from tests.allocators.virtual.slow_scheduler import CarefulScheduler, Request
from tests.allocators.virtual.step_logs import EVERY_RUN
from tests.engine.cases import Metronome, table

KIB = 1 << 10
#: (shape, groups in the pool): few tokens a group, and most pools hold few sequences; one holds
#: less than a longest sequence, and two are large enough for a watermark of one group
SMALL = [
    (Shape(2, 8, 512, 64, 8, 64 * KIB), 20),
    (Shape(3, 5, 512, 60, 12, 64 * KIB), 24),
    (Shape(2, 8, 256, 90, 16, 64 * KIB, True), 30),
    (Shape(1, 10, 512, 63, 6, 128 * KIB), 9),
    (Shape(2, 8, 512, 64, 8, 64 * KIB), 7),
    (Shape(2, 8, 512, 64, 32, 64 * KIB), 110),
    (Shape(2, 7, 640, 100, 10, 256 * KIB), 150),
]


class Diary:
    """An observer that writes a log of the engine's own; steps run in one go have one line."""

    def __init__(self):
        self.lines = []

    def on_step(self, step):
        plan, allocator, rows = step.plan, step.allocator, step.running.rows
        lengths = np.zeros(allocator.geometry.max_seqs, dtype=np.int64)
        lengths[allocator.range_of[rows]] = allocator.length[rows]
        self.lines.append({
            "step": step.first + step.steps,
            "kind": "prefill" if plan.prefills else "decode",
            "admitted": [prefill.group.index for prefill in plan.prefills],
            "preempted": [group.index for group in plan.preempted],
            "slot_lengths": lengths.tolist(),
            "mapped": allocator.pages.count.tolist(),
            "free": len(allocator.pages.free),
            "map_critical": sum(len(grant.maps) for grant in plan.blocking_grants),
            "unmap_critical": sum(len(grant.unmaps) for grant in plan.blocking_grants),
            "map_background": len(plan.beside.maps),
            "unmap_background": len(plan.beside.unmaps),
        })  # fmt: skip


def written(allocator, requests, slots, skip_ahead):
    """Return what the engine writes in its diary."""
    diary = Diary()
    spec = EngineSpec(max_num_seqs=slots, max_num_batched_tokens=sys.maxsize, skip_ahead=skip_ahead)
    sampling = SamplingSpec("greedy")
    run = Setup(allocator, requests, sampling, spec, Metronome(), seed=0, observers=[diary])
    Engine(run).run("test").check()
    return diary.lines


def assert_engine_agrees(shape, groups, prompts, outputs, *, background, deferred):
    """Run both to the end, compare every line, and return those of the slow scheduler.

    The engine runs twice, skipping ahead and not; the slow scheduler does not know the difference.
    """
    waiting = [Request(i, p, o) for i, (p, o) in enumerate(zip(prompts, outputs, strict=True))]
    scheduler = CarefulScheduler(
        SlowManager(shape, groups, deferred), waiting, int(0.01 * groups), background,
        prefill_emits=True,
    )  # fmt: skip
    expected = []
    while not scheduler.done:
        expected.append(scheduler.step())
        assert not expected[-1]["oom"]
    for skip_ahead in (False, True):
        allocator = virtual(shape, groups, background=background, deferred=deferred)
        lines = written(allocator, table(prompts, outputs), shape.slots, skip_ahead)
        by_step = {line["step"]: line for line in lines}
        assert skip_ahead or len(by_step) == len(expected)
        for line in expected:
            found = by_step.pop(line["step"], None)
            if found is None:
                assert skip_ahead, line
                assert _is_quiet(line), line
                continue
            wrong = {n: (value, line[n]) for n, value in found.items() if value != line[n]}
            assert not wrong, f"step {line['step']}: (engine, slow scheduler) {wrong}"
        assert not by_step, "the engine went on"
    return expected


def _is_quiet(line):
    """Say whether nothing but growth happens, as in all but the last of steps run in one go."""
    counts = ("map_critical", "unmap_critical", "map_background", "unmap_background")
    return not (line["admitted"] or line["preempted"] or any(line[name] for name in counts))


def happened(lines):
    """Return what the rules did over a run, in groups and sequences."""
    counts = ("map_critical", "unmap_critical", "map_background", "unmap_background")
    totals = {name: sum(line[name] for line in lines) for name in counts}
    return {**totals, "preempted": sum(len(line["preempted"]) for line in lines)}


THREADS = [(True, True), (True, False), (False, False)]


@pytest.mark.parametrize("run", EVERY_RUN)
def test_the_engine_admits_and_preempts_as_the_recorded_manager_would(run):
    setup = run.setup
    _, prompts, outputs = zip(*setup.requests, strict=True)
    totals = happened(assert_engine_agrees(
        setup.shape, setup.groups, prompts, outputs, background=setup.background,
        deferred=setup.background and setup.deferred,
    ))  # fmt: skip
    assert totals["map_critical"]
    # A prefill emits a token here, so that a handful of preemptions may come to none.
    assert totals["preempted"] or run.entry["preempted"] < 20
    assert bool(totals["map_background"]) == setup.background


@pytest.mark.parametrize(
    ("shape", "groups", "background", "deferred"),
    [
        pytest.param(*pool, *threads, marks=[] if (i + j) % 3 else [pytest.mark.further])
        for i, pool in enumerate(SMALL)
        for j, threads in enumerate(THREADS)
    ],
)
def test_the_engine_agrees_on_random_requests(shape, groups, background, deferred):
    rng = np.random.default_rng(0)
    # The whole of each fits into the pool alone, and into the buffer of a slot.
    most = min(shape.max_len, groups * shape.group_tokens)
    prompts = np.minimum(1 + rng.geometric(4 / most, 60), most // 2)
    outputs = np.minimum(rng.geometric(4 / most, 60), most - prompts)
    lines = assert_engine_agrees(
        shape, groups, prompts.tolist(), outputs.tolist(),
        background=background, deferred=deferred,
    )  # fmt: skip
    assert happened(lines)["preempted"] or groups == 150
