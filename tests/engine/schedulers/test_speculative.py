"""Speculative decoding: the same tokens in fewer steps, and every rejected slot given back."""

import numpy as np
import pytest

from allocators.base import Geometry, Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from harness.engine.schedulers.speculative import accepted_guesses
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from workloads.requests import RequestTable

MODEL = ModelShape("toy", "llama", 2, 256, 4, 4, 64, 512, 1000, 512)
HARDWARE = HardwareSpec("toy", 1, 100, 1, 16, 16)
GEOMETRY = Geometry(900, 64, 256, layers=2, kv_heads=4, head_dim=64, host_tokens=900)
FAMILIES = {
    "paged": lambda: Paged(GEOMETRY, block_size=4),
    "paged_hash": lambda: Paged(GEOMETRY, block_size=4, prefix_index="hash"),
    "virtual": lambda: Virtual(GEOMETRY, page_size="64KiB", layout="sliced"),
    "oracle": lambda: Contiguous(GEOMETRY, reservation="oracle"),
    "grow": lambda: Contiguous(GEOMETRY, reservation="grow"),
}


class Checked(SimulatedExecutor):
    """Asserts at each step that no sequence is longer than its drafts allow."""

    def step(self, plan, lengths):
        self._allocator.check()
        return super().step(plan, lengths)


def run(memory, acceptance_rate, drafts=4, **engine):
    rng = np.random.default_rng(5)
    requests = RequestTable(np.zeros(60), rng.integers(1, 60, 60), rng.integers(1, 90, 60))
    sampling = SamplingSpec("speculative", draft_tokens=drafts, acceptance_rate=acceptance_rate)
    executor = Checked(Roofline(MODEL, HARDWARE, CostSpec()), memory, sampling.draft_cost)
    spec = EngineSpec(max_num_seqs=64, **engine)
    log = Engine(Setup(memory, requests, sampling, spec, executor, 7)).run("x")
    log.check()
    memory.check()
    assert memory.balance()[0] == 0
    return log


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_all_requests_end_under_pressure(family, preemption):
    log = run(FAMILIES[family](), 0.6, preemption=preemption)
    assert np.isfinite(log.requests["finish_s"]).all()
    if family != "oracle":  # which reserves what it needs
        assert log.timeline["preemptions"].sum() > 0


def test_nothing_accepted_is_plain_decoding_with_waste():
    rich = Paged(Geometry(9000, 64, 256, layers=2, kv_heads=4, head_dim=64))
    log = run(rich, 0.0)
    outputs = log.requests["output_tokens"]
    assert log.totals["wasted_tokens"] == sum(
        min(4, int(output) - 1 - done) for output in outputs for done in range(1, int(output) - 1)
    )
    assert log.steps == outputs.max()


def test_everything_accepted_takes_a_fifth_of_the_steps():
    rich = Paged(Geometry(9000, 64, 256, layers=2, kv_heads=4, head_dim=64))
    log = run(rich, 1.0)
    assert log.totals["wasted_tokens"] == 0
    longest = int(log.requests["output_tokens"].max())
    assert log.steps == 1 + -(-(longest - 1) // 5)


def test_accepted_guesses_are_a_leading_run_with_the_given_rate():
    draws = [accepted_guesses(0, request, 3, 4, 0.7) for request in range(4000)]
    assert np.mean(draws) == pytest.approx(sum(0.7**k for k in range(1, 5)), abs=0.06)
    assert accepted_guesses(0, 1, 3, 4, 0.7) == accepted_guesses(0, 1, 3, 4, 0.7)


@pytest.mark.parametrize("policy", ["static", "orca", "chunked"])
def test_other_policies_say_that_they_cannot(policy):
    with pytest.raises(Unsupported, match="continuous"):
        run(FAMILIES["paged"](), 0.5, policy=policy)


def test_one_that_came_back_to_an_empty_pool_gets_its_drafts_once():
    """The only one that runs is swapped out, fetched in the same step, and planned again."""
    pool = Geometry(64, 4, 200, layers=2, kv_heads=4, head_dim=64, host_tokens=640)
    requests = RequestTable(np.zeros(1), np.array([4]), np.array([150]))
    memory = Contiguous(pool, reservation="grow", placement="best_fit")
    executor = SimulatedExecutor(Roofline(MODEL, HARDWARE, CostSpec()), memory)
    spec = EngineSpec(max_num_seqs=4, preemption="swap")
    sampling = SamplingSpec("speculative", acceptance_rate=0.6)
    with pytest.raises(Unservable, match=r"request '0' .* can never fit"):
        Engine(Setup(memory, requests, sampling, spec, executor, 3)).run("x")
