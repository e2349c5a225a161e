"""Runs against closed forms: queues of one server, and Little's law."""

import numpy as np
import pytest

from harness.capacity.answer import interval, rate
from harness.capacity.probe import Probe, observe
from harness.capacity.search import Settings, find
from harness.capacity.slo import Limits
from harness.comparison.variant import run_variant
from tests.capacity.single import ONE, drive, variant

SEEDS = 4


def services(one, seeds, requests):
    """Return the seconds that the server spends on each request of some seeds, none waiting."""
    found = []
    for seed in seeds:
        prepared = Probe(one, 1e-3, seed, requests).prepared()
        _, log = run_variant(prepared, one.allocator)
        found.append(log.requests["finish_s"] - log.requests["arrival_s"])
    return np.concatenate(found)


def check_waiting(one, load, requests):
    """Hold the mean time before the server to Pollaczek and Khinchine's formula."""
    service_s = services(one, range(SEEDS), requests // 5)
    per_s = float(load / service_s.mean())
    seen = [observe(Probe(one, per_s, seed, requests)) for seed in range(SEEDS)]
    assert not any(each.diverges for each in seen)
    waits_s = interval([each.metrics["e2e_mean_s"] - service_s.mean() for each in seen])
    expected_s = per_s * (service_s**2).mean() / (2 * (1 - load))
    assert waits_s.low < expected_s < waits_s.high
    # Narrow enough to tell the formula's half from its whole.
    assert waits_s.high - waits_s.low < expected_s
    return expected_s / service_s.mean()


def test_fixed_lengths_wait_as_in_an_m_d_1_queue():
    assert check_waiting(variant(*ONE), 0.6, 700) == pytest.approx(0.6 / (2 * 0.4), rel=1e-3)


def test_lengths_of_any_spread_wait_as_in_an_m_g_1_queue():
    lengths = ("workload.output={kind: geometric, mean: 12, low: 1, high: 400}",)
    waits = check_waiting(variant(*ONE[:-2], *lengths), 0.5, 1500)
    assert waits > 1.5 * 0.5 / (2 * 0.5)  # nearly an exponential service, which waits twice as long


def test_a_pool_of_k_sequences_carries_what_littles_law_says():
    """Regular gaps, so that few requests have the rate that they were asked for."""
    k, length = 4, 256
    pool = variant(
        *ONE[:1],
        *(ONE[2], "workload.burstiness=100"),
        *("allocator=[contiguous_max]", f"engine.max_len={length}", f"kv_tokens={k * length}"),
        *("workload.prompt={kind: fixed, value: 16}", "workload.output={kind: fixed, value: 240}"),
    )
    together = observe(Probe(pool, None, 0, k))
    assert together.metrics["peak_batch"] == k
    stay_s = together.metrics["e2e_mean_s"]
    found = drive(
        find(pool, Limits(), Settings(seeds=1, requests=200, tolerance=0.02, curve=False))
    )
    assert found.held_back_by == "the queue grows"
    assert max(each.metrics.get("peak_batch", 0) for each in found.seen) == k
    assert rate(found).mean == pytest.approx(k / stay_s, rel=0.03)
