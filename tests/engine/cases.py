"""Small pools, workloads, clocks and a spy that the engine's tests share."""

from collections import Counter
from functools import cache

import numpy as np
import yaml

from allocators.base import Geometry
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from tests.places import CONF
from workloads.requests import RequestTable

#: a page-group of 64 KiB holds 8 tokens of it; no power of two, no multiple of a block
POOL = Geometry(capacity_tokens=300, max_seqs=32, max_len=64, layers=2, kv_heads=8, head_dim=512)
MODES = {
    "greedy": SamplingSpec("greedy"),
    "parallel": SamplingSpec("parallel", n=3),
    "beam": SamplingSpec("beam", width=4, beam_switch=0.1),
}


def allocators(pool=POOL):
    """Return a maker for each allocator."""
    plain = {"deferred": False, "background": False}
    return {
        **{f"contiguous_{r}": lambda r=r: Contiguous(pool, reservation=r)
           for r in ("max", "pow2", "oracle", "grow")},
        "contiguous_grow_best_fit": lambda: Contiguous(
            pool, reservation="grow", placement="best_fit"),
        **{f"paged_{b}": lambda b=b: Paged(pool, block_size=b) for b in (1, 7, 16)},
        "virtual": lambda: Virtual(pool, page_size="64KiB"),
        "virtual_plain": lambda: Virtual(pool, page_size="64KiB", **plain),
        "virtual_copy": lambda: Virtual(pool, page_size="64KiB", sharing="copy"),
    }  # fmt: skip


class Metronome:
    """An executor for which every step takes one second."""

    skips = True

    def step(self, plan, lengths):
        return 1.0

    def map_s(self, grant):
        return 0.0

    def window(self, grants, lengths, steps):
        return np.ones(steps)


class Checking(Metronome):
    """A metronome that checks at each step the allocator, and the lengths that are priced."""

    skips = False

    def __init__(self, allocator):
        self._allocator = allocator

    def step(self, plan, lengths):
        self._allocator.check()
        active, cached, free = self._allocator.balance()
        assert min(active, cached, free) >= 0
        assert lengths.tolist() == self._allocator.length[plan.rows].tolist()
        return 1.0


def roofline(allocator, **cost):
    """Return an executor whose steps all take different times; `cost` are those of a `CostSpec`."""
    return SimulatedExecutor(Roofline(*_machine(), CostSpec(**cost)), allocator)


@cache
def _machine():
    """Return a model and a GPU, read once."""
    model = ModelShape(**yaml.safe_load((CONF / "model" / "llama-tiny.yaml").read_text()))
    hardware = HardwareSpec(**yaml.safe_load((CONF / "hardware" / "a10g.yaml").read_text()))
    return model, hardware


def table(prompts, outputs, arrival_s=None, concurrency=None):
    n = len(prompts)
    return RequestTable(
        arrival_s=np.zeros(n) if arrival_s is None else np.asarray(arrival_s, dtype=np.float64),
        prompt_tokens=np.asarray(prompts, dtype=np.int64),
        output_tokens=np.asarray(outputs, dtype=np.int64),
        concurrency=concurrency,
    )


def drawn(n, arrivals="at_once", mean_gap_s=0.0, seed=0, longest=(32, 32)):
    """Return `n` requests of skewed lengths; arrivals at once, by Poisson, or in a closed loop."""
    rng = np.random.default_rng(seed)
    prompts = np.minimum(1 + rng.geometric(1 / 18, n), longest[0])
    outputs = np.minimum(rng.geometric(1 / 16, n), longest[1])
    if arrivals == "closed":
        return table(prompts, outputs, concurrency=6)
    times = np.cumsum(rng.exponential(mean_gap_s, n)) if arrivals == "poisson" else None
    return table(prompts, outputs, times)


def make(allocator, requests, sampling, executor=None, seed=0, **options):
    executor = executor or Metronome()
    options.setdefault("max_num_seqs", allocator.geometry.max_seqs)
    return Engine(Setup(allocator, requests, sampling, EngineSpec(**options), executor, seed))


def run(*args, **kwargs):
    """Run an engine; its log has contradicted nothing."""
    log = make(*args, **kwargs).run("test")
    log.check()
    return log


class Spy:
    """Sits between an engine and its scheduler, and asserts at each step what must always hold."""

    def __init__(self, engine):
        self._scheduler, engine._scheduler = engine._scheduler, self
        self.sampled_tokens = Counter()  # request -> tokens, summed over its sequences
        self.prefilled = Counter()  # request -> how often
        self.prefill_batches = []  # (groups that run beside, groups computed)

    def __getattr__(self, name):
        return getattr(self._scheduler, name)

    def plan(self, horizon):
        result = self._scheduler.plan(horizon)
        self.check_groups()
        if result is not None and result.prefills:
            computed = [p.group.index for p in result.prefills]
            beside = [i for i in self.running.groups if i not in computed]
            self.prefill_batches.append((beside, computed))
            new = [p for p in result.prefills if not p.group.generated]
            preempted = [g for g in self.waiting if g.generated]
            assert not (new and preempted), "a request was admitted past a preempted one"
            self.prefilled.update(computed)
        return result

    def check_groups(self):
        running, waiting = self.running, self.waiting
        owned = Counter(running.owner.tolist())
        assert owned == {i: g.sequences for i, g in running.groups.items()}, "a group is split"
        rows = running.rows.tolist()
        assert len(set(rows)) == len(rows), "two sequences run in one row"
        for group in running.groups.values():
            assert running.rows[running.owner == group.index].tolist() == group.rows.tolist()
        for group in waiting:
            assert not len(group.rows), "a waiting sequence holds a row"
            assert group.index not in running.groups
        order = [*running.groups, *(group.index for group in waiting)]
        assert order == sorted(order), "somebody overtook"

    def sampled(self, plan, ends_s):
        for prefill in plan.prefills:
            self.sampled_tokens[prefill.group.index] += prefill.group.sequences
        computed = set(plan.rows.tolist())
        running = self.running
        for row, owner in zip(running.rows.tolist(), running.owner.tolist(), strict=True):
            if row in computed:
                self.sampled_tokens[owner] += plan.steps
        return self._scheduler.sampled(plan, ends_s)
