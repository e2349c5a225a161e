"""Bracketing and halving, on runs that are made up and on real ones."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from harness.capacity.answer import rate, ratio, rows_of
from harness.capacity.output import best_sentence
from harness.capacity.probe import Observation, Probe, observe
from harness.capacity.question import variants_of
from harness.capacity.search import Settings, failures, find, requests_by_rule
from harness.capacity.slo import Limits
from harness.comparison import compose, prepare
from harness.comparison.key import job_key
from tests.capacity.single import ONE, drive, variant

LIMITS = Limits({"ttft_p99_s": 1.0})


def knee(at, of_seed=lambda seed: 1.0, guess=10.0):
    """Return an observer of a system whose latency passes 1 s at a rate, of each seed its own."""

    def see(probe):
        metrics = {"peak_batch": 8, "requests_per_s": guess}
        if probe.rate is not None:
            metrics["ttft_p99_s"] = probe.rate / (at * of_seed(probe.seed))
        return Observation(probe.rate, probe.seed, "ok", requests=10, metrics=metrics)

    return see


@pytest.fixture(scope="module")
def one():
    return variant(*ONE)


@pytest.mark.parametrize("at", [0.007, 0.3, 9.9, 10.0, 10.1, 55.0, 600.0])
def test_the_highest_rate_that_holds_is_found_wherever_it_is(one, at):
    found = drive(find(one, LIMITS, Settings(curve=False)), knee(at))
    for held in found.held:
        assert held.below.rate <= at < held.above.rate
        assert held.above.rate / held.below.rate == pytest.approx(1.02, rel=1e-3)
    assert found.held_back_by == "slo.ttft_p99_s"
    assert len(found.seen) < 25 + 4 * 4


def test_too_few_requests_to_have_a_throughput_are_said_so(one):
    found = drive(find(one, LIMITS, Settings(requests=50)), knee(1.0, guess=float("inf")))
    assert found.held == []
    assert found.reason == "50 requests leave no time to measure: take more of them (requests=N)"


def test_seeds_that_differ_give_an_interval_and_a_ratio_that_is_narrower(one):
    spread = [0.9, 1.0, 1.1, 0.95, 1.05]
    settings = Settings(curve=False)
    slow, fast = (
        drive(find(one, LIMITS, settings), knee(at, spread.__getitem__)) for at in (5.0, 10.0)
    )
    for at, found in ((5.0, slow), (10.0, fast)):
        seen = rate(found)
        assert seen.low < at < seen.high
        assert seen.high - seen.low > 0.1 * at
    of = ratio(slow, fast)
    assert of.mean == pytest.approx(0.5, rel=0.02)
    assert of.high - of.low < 0.03
    assert [row.of_best.mean for row in rows_of([slow, fast])] == pytest.approx(
        [0.5, 1.0], rel=0.02
    )


def test_a_sentence_claims_no_difference_within_the_interval(one):
    even, odd = [1.0, 1.2, 0.9, 1.0, 1.1], [1.2, 0.9, 1.0, 1.1, 1.0]
    settings = Settings(curve=False)
    found = [
        drive(find(replace(one, label=label), LIMITS, settings), knee(at, of.__getitem__))
        for label, at, of in (("a", 5.0, even), ("b", 10.0, even), ("c", 9.9, odd))
    ]
    said = best_sentence(rows_of(found))
    assert re.match(r"b sustains 10\.\d requests a second \(95 %: .*\), 2\.0\d times a \(", said)
    assert said.endswith("; not told apart from it at 95 %: c.")
    ideal = replace(found[1], variant=replace(found[1].variant, idealised=True))
    said = best_sentence(rows_of([found[0], ideal, found[2]]))
    assert re.match(
        r"b leads with 10\.\d requests a second, but is idealised\. Of those that ", said
    )
    assert " can be built, c sustains " in said
    assert re.search(r", 1\.\d\d times a \(", said)
    alone = [replace(capacity, held=capacity.held[:1]) for capacity in found[:2]]
    assert best_sentence(rows_of(alone)).endswith(
        "times a; one sample does not say how sure that is."
    )


def test_rates_are_those_of_any_other_question(one):
    asked = [
        {o.rate for o in drive(find(one, LIMITS, Settings(curve=False)), knee(at)).seen}
        for at in (5.0, 9.0)
    ]
    assert len(asked[0] & asked[1]) >= 3


def test_no_rate_is_said_in_a_line(one):
    settings = Settings(curve=False)
    strict = drive(find(one, LIMITS, settings), knee(1e-9))
    assert strict.reason.startswith("no rate meets slo.ttft_p99_s=1: even at 0.00")
    loose = drive(find(one, LIMITS, settings), knee(1e9))
    assert loose.reason.startswith("no rate is too high: 10 requests hold every limit even at ")
    refused = lambda probe: Observation(probe.rate, probe.seed, "oom", "too small")  # noqa: E731
    assert drive(find(one, LIMITS, settings), refused).reason == "oom: too small"
    none = drive(find(one, Limits({"tpot_p99_s": 1.0}), settings), knee(5.0))
    assert none.reason == "slo.tpot_p99_s: this workload has no such latency"
    assert not any((strict.held, loose.held, refused(none.seen[0]).ok, none.held))


def test_a_run_is_long_beside_what_it_serves_at_once():
    assert [requests_by_rule(n) for n in (1, 100, 101, 256)] == [3000, 3000, 3100, 7700]


def test_halving_finds_what_a_dense_sweep_finds(one):
    """Both on the same runs: the rate below which all hold, and above which none does."""
    limits = Limits({"ttft_mean_s": 0.06})
    settings = Settings(seeds=1, requests=150, tolerance=0.05, curve=False)
    seen = {}

    def remember(probe):
        seen[probe] = seen.get(probe) or observe(probe)
        return seen[probe]

    found = drive(find(one, limits, settings), remember)
    (held,) = found.held
    power = settings.power(held.below.rate)
    sweep = [settings.rate(p) for p in range(power - 5, power + 6)]
    held_at = [not failures(remember(Probe(one, r, 0, 150)), limits) for r in sweep]
    assert held_at == [True] * 6 + [False] * 5


def test_a_trace_is_one_sample_that_is_stretched(tmp_path):
    """Its own gaps, burst and lull, at every rate; no seed, and so no interval."""
    gaps = [0.0, *[0.1] * 9, 5.0] * 20
    lines = [f"{t:.3f},100,1" for t in np.cumsum(gaps[:200])]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]) + "\n")
    one = variant("+workload=trace", f"workload.path={trace}", *ONE[1:4])
    assert one.own_times
    assert one.requests == 200
    probe = Probe(one, 4.0, 0, 100)
    times = probe.prepared().requests.arrival_s
    recorded = np.cumsum(gaps[:100])
    assert times == pytest.approx((recorded - recorded[0]) * 99 / (4.0 * recorded[-1]))
    found = drive(find(one, Limits({"ttft_p99_s": 0.2}), Settings(tolerance=0.05)))
    assert [held.seed for held in found.held] == [0]
    assert (rate(found).low, rate(found).high) == (None, None)
    assert found.requests == 200


def test_a_run_is_what_its_options_compose_to():
    """Its configuration is derived from another's; its key is that of a job that has it."""
    lines = (
        *("+workload=uniform", "model=llama-3-8b", "engine=chunked", "engine.max_num_seqs=9"),
        *("allocators.paged.block_size=32", "workload.prompt={kind: fixed, value: 7}"),
    )
    paged, _ = variants_of([*lines, "allocator=[paged,virtual]"])
    probe = Probe(paged, 2.0, 3, 50)
    own = ("workload.rate=2.0", "seed=3", "workload.num_requests=50", "allocator=[paged]")
    composed = compose(*lines, *own)
    found, expected = probe.prepared(), prepare(composed)
    assert found.config == expected.config
    assert found.saved == expected.saved
    assert probe.key().startswith(f"{job_key(composed)}-")
    assert Probe(paged, None, 3, 50).prepared().config.workload.rate == math.inf


def test_a_duration_gives_each_rate_its_own_number_of_requests(one):
    wanted = []

    def see(probe):
        wanted.append(probe)
        return knee(5.0)(probe)

    found = drive(find(one, LIMITS, Settings(duration_s=60.0, seeds=2)), see)
    assert found.requests is None
    assert all(p.requests == round(60 * p.rate) for p in wanted if p.rate is not None)
