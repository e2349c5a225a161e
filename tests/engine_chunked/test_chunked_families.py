"""`engine=chunked` over every family: bytes add up, nobody is lost, skipping changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from allocators.base import Demand, Geometry, NeverFits, Prompt, Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine, OutOfMemory
from harness.executors.simulated import SimulatedExecutor
from harness.summary import summarize
from workloads.requests import RequestTable

CONF = Path(__file__).resolve().parents[2] / "conf"
#: a page-group of 64 KiB holds 8 tokens of it
POOL = Geometry(capacity_tokens=480, max_seqs=20, max_len=96, layers=2, kv_heads=8, head_dim=512)
FAMILIES = {
    **{
        f"contiguous_{reservation}": {"of": Contiguous, "reservation": reservation}
        for reservation in ("max", "pow2", "oracle", "grow")
    },
    "paged": {"of": Paged, "block_size": 16},
    "paged_one": {"of": Paged, "block_size": 1},
    "paged_hash": {"of": Paged, "block_size": 8, "prefix_index": "hash"},
    "paged_radix": {"of": Paged, "block_size": 4, "prefix_index": "radix"},
    "paged_lfu": {"of": Paged, "block_size": 4, "prefix_index": "hash", "eviction": "lfu"},
    "virtual": {"of": Virtual, "page_size": "64KiB"},
    "virtual_copy": {"of": Virtual, "page_size": "64KiB", "sharing": "copy"},
    "virtual_plain": {
        "of": Virtual,
        "page_size": "64KiB",
        **{"deferred": False, "eager": False, "background": False},
    },
}


def allocator(family):
    knobs = dict(FAMILIES[family])
    return knobs.pop("of")(POOL, **knobs)


def executor(of):
    model = ModelShape(**yaml.safe_load((CONF / "model" / "llama-tiny.yaml").read_text()))
    hardware = HardwareSpec(**yaml.safe_load((CONF / "hardware" / "a10g.yaml").read_text()))
    return SimulatedExecutor(Roofline(model, hardware, CostSpec()), of)


class Checked:
    """Prices steps, after it has checked every invariant of the allocator."""

    skips = False

    def __init__(self, of):
        self._of, self._inner = of, executor(of)

    def step(self, plan, lengths):
        self._of.check()
        assert min(self._of.balance()) >= 0
        return self._inner.step(plan, lengths)

    def map_s(self, grant):
        return 0.0

    def window(self, grants, lengths, steps):
        raise AssertionError("it does not skip")


def requests(n=60, arrivals="at_once", seed=3):
    """Return prompts with four common beginnings, of 1 to 45 tokens."""
    rng = np.random.default_rng(seed)
    stems = rng.integers(0, 1000, (4, 30))
    token_ids = [
        np.concatenate([stems[rng.integers(4), : rng.integers(1, 30)], rng.integers(0, 1000, own)])
        for own in rng.integers(0, 16, n)
    ]
    gaps = {"at_once": np.zeros(n), "poisson": rng.exponential(4e-3, n)}
    return RequestTable(
        arrival_s=np.cumsum(gaps.get(arrivals, gaps["at_once"])),
        prompt_tokens=np.array([len(ids) for ids in token_ids]),
        output_tokens=np.minimum(rng.geometric(1 / 18, n), 45),
        token_ids=token_ids,
        concurrency=7 if arrivals == "closed" else None,
    )


def run(family, table, skip=True, checked=False, **options):
    of = allocator(family)
    make = Checked if checked else executor
    spec = EngineSpec(policy="chunked", skip_ahead=skip, **{"max_num_batched_tokens": 24} | options)
    log = Engine(of, table, SamplingSpec(), spec, make(of), seed=0).run(family)
    log.check()
    return log, of


@pytest.mark.parametrize("arrivals", ["at_once", "poisson", "closed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_request_ends_and_every_step_conserves(family, arrivals):
    table = requests(arrivals=arrivals)
    log, of = run(family, table, checked=True, max_num_seqs=20)
    assert sorted(log.requests["request"].tolist()) == list(range(len(table)))
    assert (log.requests["finish_s"] >= log.requests["first_token_s"]).all()
    assert (log.requests["first_token_s"] > log.requests["first_scheduled_s"]).all()
    assert (log.requests["first_scheduled_s"] >= log.requests["arrival_s"]).all()
    assert (log.timeline["batched_tokens"] >= 1).all()
    assert (log.timeline["batched_tokens"] <= 24).all()
    assert not of.active.any()
    assert of.balance()[0] == 0
    # Every token that is fed is computed or hit once, and again for each that was wasted.
    fed = int((table.prompt_tokens + table.output_tokens - 1).sum())
    metrics = summarize(log)
    assert metrics["computed_tokens"] + metrics["hit_tokens"] >= fed
    if not of.has_prefix_index:
        assert metrics["computed_tokens"] == fed + metrics["wasted_tokens"]
        assert metrics["hit_tokens"] == 0
        assert metrics["prefix_hit_rate"] is None
    elif arrivals == "at_once":
        assert metrics["hit_tokens"] > 0 < metrics["evictions"]


@pytest.mark.parametrize("arrivals", ["at_once", "poisson", "closed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_skipping_ahead_and_running_again_change_no_bit(family, arrivals):
    table = requests(arrivals=arrivals)
    first, _ = run(family, table)
    again, _ = run(family, table)
    single, _ = run(family, table, skip=False)
    for other in (again, single):
        for name, column in first.timeline.items():
            assert (column == other.timeline[name]).all(), name
        for name, column in first.requests.items():
            assert (column == other.requests[name]).all(), name
        assert first.totals | {"allocator_host_s": 0} == other.totals | {"allocator_host_s": 0}


def test_the_families_differ_only_in_what_memory_allows():
    """With room for all, every family takes the same steps."""
    table = requests(n=4)
    steps = [run(family, table)[0].timeline for family in FAMILIES if "max" not in family]
    for timeline in steps:
        assert not timeline["preemptions"].any()
        if not timeline["hit_tokens"].any():
            assert (timeline["batched_tokens"] == steps[0]["batched_tokens"]).all()


def test_a_prompt_is_split_and_its_first_token_comes_with_its_last_piece():
    table = RequestTable(np.zeros(2), np.array([40, 30]), np.array([3, 2]))
    log, _ = run("paged", table, max_num_batched_tokens=16)
    timeline = log.timeline
    assert timeline["batched_tokens"].tolist() == [16, 16, 16, 16, 8, 1]
    assert timeline["running"].tolist() == [1, 1, 2, 2, 1, 0]
    assert timeline["waiting"].tolist() == [1, 1, 0, 0, 0, 0]
    assert timeline["blocks_in_use"].tolist() == [1, 2, 4, 5, 5, 2]
    assert log.requests["first_token_s"].tolist() == timeline["time_s"][[2, 4]].tolist()


def test_a_request_that_outgrows_the_whole_pool_is_named():
    table = RequestTable(np.zeros(2), np.array([8, 40]), np.array([2, 45]), ids=["a", "b"])
    small = Paged(Geometry(capacity_tokens=64, max_seqs=4, max_len=96))
    engine = Engine(
        small, table, SamplingSpec(), EngineSpec(policy="chunked"), executor(small), seed=0
    )
    with pytest.raises(OutOfMemory, match="'b'"):
        engine.run("paged")


@pytest.mark.parametrize("mode", ["parallel", "beam"])
def test_gangs_are_refused_with_a_reason(mode):
    of = allocator("paged")
    with pytest.raises(Unsupported, match=f"sampling.mode={mode}"):
        Engine(
            of,
            requests(4),
            SamplingSpec(mode=mode, n=2, width=2),
            EngineSpec(policy="chunked"),
            executor(of),
            seed=0,
        )


@pytest.mark.parametrize("policy", ["continuous", "static"])
@pytest.mark.parametrize("family", ["paged_hash", "paged_radix"])
def test_the_other_policies_hit_the_prefix_cache_too(family, policy):
    for sampling in (SamplingSpec(), SamplingSpec("parallel", n=2), SamplingSpec("beam", width=3)):
        of, table = allocator(family), requests()
        spec = EngineSpec(policy=policy, max_num_seqs=20)
        log = Engine(of, table, sampling, spec, Checked(of), seed=0).run(family)
        log.check()
        metrics = summarize(log)
        assert metrics["hit_tokens"] > 0
        assert 0 < metrics["prefix_hit_rate"] < 1
        if sampling.sequences == 1:
            fed = int((table.prompt_tokens + table.output_tokens - 1).sum())
            first_hits = metrics["computed_tokens"] - metrics["wasted_tokens"]
            assert first_hits + metrics["hit_tokens"] >= fed


def test_a_prompt_that_no_pool_can_hold_is_refused_at_once():
    of = Paged(Geometry(capacity_tokens=32, max_seqs=4, max_len=96))
    with pytest.raises(NeverFits):
        of.admit(np.array([0]), Prompt(16, whole_tokens=40), Demand(40, 2))
