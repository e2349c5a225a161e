"""`engine=chunked` over every family: bytes add up, nobody is lost, skipping changes nothing."""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, NeverFits, Prompt
from allocators.paged import Paged
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from harness.engine.setup import Setup
from harness.results.summary import summarize
from tests.engine.schedulers.chunked.cases import FAMILIES, Checked, allocator, executor, requests
from workloads.requests import RequestTable


def run(family, table, skip=True, checked=False, **options):
    of = allocator(family)
    make = Checked if checked else executor
    spec = EngineSpec(policy="chunked", skip_ahead=skip, **{"max_num_batched_tokens": 24} | options)
    log = Engine(Setup(of, table, SamplingSpec(), spec, make(of), seed=0)).run(family)
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
    assert metrics["hit_bytes"] == metrics["hit_tokens"] * of.geometry.bytes_per_token
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
    others = [run(family, table, skip=False)[0]]
    if arrivals == "at_once":
        others.append(run(family, table)[0])
    for other in others:
        for name, column in first.timeline.items():
            assert (column == other.timeline[name]).all(), name
        for name, column in first.requests.items():
            np.testing.assert_array_equal(column, other.requests[name], err_msg=name)
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
        Setup(small, table, SamplingSpec(), EngineSpec(policy="chunked"), executor(small), seed=0)
    )
    with pytest.raises(Unservable, match="'b'"):
        engine.run("paged")


@pytest.mark.parametrize("policy", ["continuous", "static", "orca"])
@pytest.mark.parametrize("family", ["paged_hash", "paged_radix"])
def test_the_other_policies_hit_the_prefix_cache_too(family, policy):
    for sampling in (SamplingSpec(), SamplingSpec("parallel", n=2), SamplingSpec("beam", width=3)):
        of, table = allocator(family), requests()
        spec = EngineSpec(policy=policy, max_num_seqs=20)
        log = Engine(Setup(of, table, sampling, spec, Checked(of), seed=0)).run(family)
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
