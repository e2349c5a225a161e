"""Every allocator x mode x policy x kind of arrival: skipping ahead changes no bit, groups stay
whole, every byte and every token is accounted for, and every request ends once.
"""

import numpy as np
import pytest

from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from tests.engine.cases import MODES, Checking, Spy, allocators, drawn, make, roofline, run

ALLOCATORS = allocators()
ARRIVALS = ("at_once", "poisson", "closed")
MODE_POLICY = [(mode, policy) for mode in MODES for policy in ("continuous", "static", "orca")]
#: more of the same reservations, sizes and rules: in each run with one policy, else with `further`
MORE = ("contiguous_pow2", "contiguous_oracle", "contiguous_grow_best_fit", "paged_1", "paged_16",
        "virtual_plain")  # fmt: skip
CASES = [
    pytest.param(
        name, mode, policy, id=f"{name}-{mode}-{policy}",
        marks=[pytest.mark.further] if name in MORE and policy != "continuous" else [],
    )
    for name in ALLOCATORS
    for mode, policy in MODE_POLICY
]  # fmt: skip
#: these never preempt: they reserve a whole life at admission
RESERVED = ("contiguous_max", "contiguous_pow2", "contiguous_oracle")


def requests_of(arrivals, mode):
    """Return requests of which some wait for memory, and, with gaps, some for nothing."""
    # A step of the roofline takes 0.6 ms here; a group of four needs more of them in a row.
    gap_s = {"greedy": 0.0025, "parallel": 0.006, "beam": 0.011}[mode]
    return drawn(20, arrivals, gap_s, seed=5)


def engine_of(name, mode, policy, arrivals, skip, seed=0):
    allocator = ALLOCATORS[name]()
    return make(
        allocator,
        requests_of(arrivals, mode),
        MODES[mode],
        roofline(allocator),
        seed,
        policy=policy,
        skip_ahead=skip,
        max_num_seqs=32,
        max_num_batched_tokens=None if policy == "static" else 100,
    )


def assert_identical(one, other):
    for part in ("timeline", "requests"):
        ours, theirs = getattr(one, part), getattr(other, part)
        assert list(ours) == list(theirs)
        for column in ours:
            assert ours[column].dtype == theirs[column].dtype
            np.testing.assert_array_equal(ours[column], theirs[column], err_msg=column)
    for total in one.totals:
        if total != "allocator_host_s":
            assert one.totals[total] == other.totals[total], total
    for ours, theirs in zip(one.token_gaps.values(), other.token_gaps.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg="token gaps")


@pytest.mark.parametrize(("name", "mode", "policy"), CASES)
def test_skipping_ahead_changes_no_bit_and_nothing_is_lost(name, mode, policy):
    preemptions = saturated = gaps_s = 0
    for arrivals in ARRIVALS:
        requests, sequences = requests_of(arrivals, mode), MODES[mode].sequences
        stepwise, skipping = (
            engine_of(name, mode, policy, arrivals, skip) for skip in (False, True)
        )
        spies = Spy(stepwise), Spy(skipping)
        ended = []
        log = stepwise.run("x", ended.append)
        log.check()
        assert_identical(log, skipping.run("x"))

        assert ended == sorted(ended)
        assert ended[-1] == len(requests)
        for spy in spies:
            assert [spy.sampled_tokens[i] for i in range(len(requests))] == (
                requests.output_tokens * sequences
            ).tolist()
            again = [spy.prefilled[i] - 1 for i in range(len(requests))]
            assert again == log.requests["preemptions"].tolist()
        assert log.requests["output_tokens"].tolist() == requests.output_tokens.tolist()
        assert log.requests["request"].tolist() == list(range(len(requests)))
        assert_clock_is_sane(log)
        happened = int(log.timeline["preemptions"].sum())
        assert happened == log.requests["preemptions"].sum()
        tokens = requests.prompt_tokens.sum() + sequences * (requests.output_tokens - 1).sum()
        if not happened:
            assert log.timeline["batched_tokens"].sum() == tokens
        else:
            assert log.timeline["batched_tokens"].sum() > tokens
        assert log.timeline["running"][-1] == 0
        assert log.timeline["waiting"][-1] == 0
        preemptions += happened
        saturated += int(log.timeline["saturated"].sum())
        gaps_s += log.totals["gap_s"]
    assert saturated, "nobody ever waited for memory"
    assert gaps_s, "the engine never waited for an arrival"
    assert (preemptions > 0) == (name not in RESERVED)


def assert_clock_is_sane(log):
    """Arrival <= first scheduled < first token <= finish, in the order of arrival."""
    r, t = log.requests, log.timeline
    assert (r["arrival_s"] <= r["first_scheduled_s"]).all()
    assert (r["first_scheduled_s"] < r["first_token_s"]).all()
    assert (r["first_token_s"] <= r["finish_s"]).all()
    assert (np.diff(r["first_scheduled_s"]) >= 0).all(), "somebody overtook"
    for column in ("first_token_s", "finish_s"):
        assert np.isin(r[column], t["time_s"]).all(), column
    assert np.isin(r["first_scheduled_s"], t["start_s"]).all()
    assert (t["start_s"][1:] >= t["time_s"][:-1]).all()
    # Sequences that run at the end of each step: scheduled by then, and not finished.
    ends = t["time_s"][:, None]
    alive = (r["first_scheduled_s"] < ends) & (ends < r["finish_s"])
    arrived = (r["arrival_s"] <= ends) & (ends < r["finish_s"])
    assert (t["running"] <= alive.sum(axis=1)).all()
    waits = arrived.sum(axis=1) - t["running"]
    closed = r["arrival_s"][-1] in r["finish_s"]
    # In a closed loop those that take the places of the ended come with the next step.
    assert (t["waiting"] <= waits).all() if closed else (t["waiting"] == waits).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_allocator_is_whole_after_every_step(name, mode):
    allocator = ALLOCATORS[name]()
    log = run(allocator, drawn(16, seed=8), MODES[mode], Checking(allocator), max_num_seqs=20)
    assert not allocator.active.any()
    active, cached, free = allocator.balance()
    assert active == 0
    assert cached == 0 or name.startswith("virtual")
    assert free + cached > 0
    parts = {f"{c}_bytes" for c in ("token", "reserved", "internal", "external", "cached", "idle")}
    assert sum(int(log.timeline[c].sum()) for c in parts) == log.capacity_bytes * log.steps


@pytest.mark.parametrize("name", ["contiguous_grow", "paged_7", "virtual"])
def test_the_seed_decides_the_beams_and_nothing_else(name):
    logs = {
        (mode, seed): engine_of(name, mode, "continuous", "poisson", True, seed).run("x")
        for mode in MODES
        for seed in (0, 1)
    }
    again = engine_of(name, "beam", "continuous", "poisson", True, 0).run("x")
    assert_identical(logs["beam", 0], again)
    copied = [logs["beam", seed].timeline["copied_bytes"].tolist() for seed in (0, 1)]
    assert copied[0] != copied[1]
    for mode in ("greedy", "parallel"):
        assert_identical(logs[mode, 0], logs[mode, 1])


@pytest.mark.parametrize("policy", ["continuous", "static", "orca"])
def test_one_sample_and_one_beam_are_greedy(policy):
    logs = []
    for sampling in (SamplingSpec(), SamplingSpec("parallel", n=1), SamplingSpec("beam", width=1)):
        allocator = ALLOCATORS["paged_7"]()
        requests = requests_of("at_once", "greedy")
        spec = EngineSpec(policy=policy, max_num_seqs=20)
        logs.append(
            Engine(Setup(allocator, requests, sampling, spec, roofline(allocator), 0)).run("x")
        )
    assert logs[0].timeline["preemptions"].sum()
    assert_identical(logs[0], logs[1])
    assert_identical(logs[0], logs[2])


def test_a_budget_of_prompt_tokens_bounds_a_step_unless_one_prompt_is_longer():
    requests = drawn(30, seed=3)
    for budget in (1, 40, 90):
        log = run(
            ALLOCATORS["contiguous_oracle"](),
            requests,
            MODES["greedy"],
            max_num_batched_tokens=budget,
        )
        prefill = log.timeline["batched_tokens"] > log.timeline["batch"]
        longest = max(budget, requests.prompt_tokens.max(), 20)
        assert log.timeline["batched_tokens"][prefill].max() <= longest
        assert log.timeline["batched_tokens"].max() >= min(budget, 40)
