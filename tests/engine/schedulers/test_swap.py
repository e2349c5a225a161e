"""Preemption by swap: nothing is lost or computed twice, and the clock pays for the transfer."""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt, Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from tests.engine.cases import Checking
from workloads.requests import RequestTable

MODEL = ModelShape("toy", "llama", 2, 256, 4, 4, 64, 512, 1000, 512)
HARDWARE = HardwareSpec("toy", 1, 100, 1, 16, 16)
POLICIES = ("continuous", "orca")
GEOMETRY = Geometry(700, 64, 256, layers=2, kv_heads=4, head_dim=64, host_tokens=9000)


def allocator(name, geometry=GEOMETRY):
    if name == "paged":
        return Paged(geometry, block_size=8)
    if name == "virtual":
        return Virtual(geometry, page_size="64KiB", layout="sliced")
    return Contiguous(geometry, reservation="grow", placement="first_fit")


def run(memory, preemption, mode="greedy", n=1, skip=True, executor=None, **engine):
    rng = np.random.default_rng(3)
    requests = RequestTable(np.zeros(50), rng.integers(1, 60, 50), rng.integers(1, 120, 50))
    sampling = SamplingSpec(mode, n, n)
    spec = EngineSpec(max_num_seqs=64, preemption=preemption, skip_ahead=skip, **engine)
    executor = executor or SimulatedExecutor(Roofline(MODEL, HARDWARE, CostSpec()), memory)
    log = Engine(Setup(memory, requests, sampling, spec, executor, 0)).run("x")
    log.check()
    memory.check()
    return log


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["paged", "virtual", "grow"])
@pytest.mark.parametrize(("mode", "n"), [("greedy", 1), ("parallel", 2), ("beam", 2)])
def test_swapped_requests_all_end_and_nothing_is_computed_twice(name, mode, n, policy):
    log = run(allocator(name), "swap", mode, n, policy=policy)
    assert log.timeline["preemptions"].sum() > 0
    assert log.totals["swapped_bytes"] > 0
    assert np.isfinite(log.requests["finish_s"]).all()
    prompts = log.requests["prompt_tokens"].sum()
    fed = n * (log.requests["output_tokens"] - 1).sum()
    assert log.timeline["batched_tokens"].sum() == prompts + fed
    assert log.totals["wasted_tokens"] == 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["paged", "virtual", "grow"])
def test_skipping_ahead_changes_nothing_under_swap(name, policy):
    fast, slow = (run(allocator(name), "swap", skip=skip, policy=policy) for skip in (True, False))
    if policy == "orca":  # its first iteration is not full before memory is
        waits = fast.timeline["waiting"] > 0
        assert fast.timeline["saturated"][waits].all(), "somebody waited, and not for memory"
    for column, values in fast.timeline.items():
        assert np.array_equal(values, slow.timeline[column]), column


@pytest.mark.parametrize("policy", POLICIES)
def test_a_full_host_falls_back_to_recomputing(policy):
    geometry = Geometry(700, 64, 256, layers=2, kv_heads=4, head_dim=64, host_tokens=40)
    memory = allocator("paged", geometry)
    log = run(memory, "swap", policy=policy, executor=Checking(memory))
    assert log.totals["swapped_bytes"] > 0
    assert log.totals["wasted_tokens"] > 0
    assert np.isfinite(log.requests["finish_s"]).all()


def test_transfers_cost_time_and_small_blocks_cost_more():
    # PagedAttention, Fig. 19: swapping suffers from small blocks, recomputing does not.
    model = Roofline(MODEL, HARDWARE, CostSpec())
    times = {}
    for block in (1, 16, 128):
        memory = Paged(GEOMETRY, block_size=block)
        memory.admit(np.array([0]), Prompt(200), Demand(200, 10))
        times[block] = model.grant_s(memory.suspend(np.array([0]), 0), memory)
    assert times[1] > 5 * times[16] > 5 * times[128]


def test_chunked_preempts_by_recomputing_only():
    with pytest.raises(Unsupported, match="recompute"):
        run(allocator("paged"), "swap", policy="chunked")


@pytest.mark.parametrize("policy", POLICIES)
def test_admission_by_expected_length_trades_batch_for_preemptions(policy):
    eager = run(allocator("paged"), "recompute", policy=policy)
    careful = run(allocator("paged"), "recompute", policy=policy, expected_output_tokens=60)
    preempted = [log.timeline["preemptions"].sum() for log in (eager, careful)]
    assert preempted[1] < preempted[0]
    assert careful.timeline["batch"].max() < eager.timeline["batch"].max()
    assert np.isfinite(careful.requests["finish_s"]).all()
    # An expectation that no pool could meet lets requests in one at a time, not never.
    one = run(allocator("paged"), "recompute", policy=policy, expected_output_tokens=100_000)
    assert np.isfinite(one.requests["finish_s"]).all()
