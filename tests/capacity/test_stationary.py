"""What is a warm-up, and what is a queue that grows."""

import numpy as np
import pytest

from harness.capacity.probe import Probe, observe
from harness.capacity.stationary import ENDED, GOING_ON, STRETCHES, trend, warm_up
from tests.capacity.single import ONE, variant


def test_a_ramp_is_left_out():
    rng = np.random.default_rng(1)
    for ramp in (50, 200):
        values = rng.gamma(4.0, 1.0, 2000)
        values[:ramp] *= np.linspace(0.0, 1.0, ramp)
        assert 0.3 * ramp < warm_up(values) < 2 * ramp + 50


def test_a_busy_start_is_no_warm_up():
    values = np.random.default_rng(2).gamma(4.0, 1.0, 2000)
    values[:300] *= 3
    assert warm_up(values) == 0


def mser(values, allowed=lambda rest, means: True):
    """Return MSER-5's cut d: the least sum of squares around the rest's mean over (m - d)^2."""
    means = values.reshape(-1, 5).mean(axis=1)
    rests = {d: means[d:] for d in range(len(means) // 2 + 1) if allowed(means[d:], means)}
    errors = {d: ((r - r.mean()) ** 2).sum() / len(r) ** 2 for d, r in rests.items()}
    return 5 * min(errors, key=errors.get)


def test_warm_up_is_the_rule_as_it_is_written():
    rng = np.random.default_rng(3)
    cuts = set()
    for _ in range(20):
        values = rng.normal(size=400).cumsum() + np.linspace(0, 30, 400)
        # The whole itself is allowed, however it is rounded.
        cut = mser(
            values, lambda rest, means: len(rest) == len(means) or rest.mean() >= means.mean()
        )
        assert warm_up(values) == cut
        cuts.add(cut)
    assert len(cuts) > 5
    assert warm_up(values[:7]) == 0


def test_a_warm_up_costs_a_queue_nothing_of_its_length():
    """M/D/1 at a load of 0.9, which hardly has one: MSER-5 by itself finds it 6 % shorter."""
    whole, plain, ours = [], [], []
    for seed in range(150):
        arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / 0.9, 3000))
        waits = np.maximum.accumulate(arrivals - np.arange(3000)) + np.arange(3000) - arrivals
        whole.append(waits.mean())
        plain.append(waits[mser(waits) :].mean())
        ours.append(waits[warm_up(waits) :].mean())
    assert np.mean(ours) == pytest.approx(np.mean(whole), rel=0.005)
    assert np.mean(plain) == pytest.approx(0.94 * np.mean(whole), rel=0.01)


def queue(load, seed, n=3000):
    """Return the times and lengths of a queue of one server (M/D/1), a step a change."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / load, n))
    ends = np.arange(1, n + 1) + np.maximum.accumulate(arrivals - np.arange(n))
    times = np.sort(np.concatenate([arrivals, ends]))
    there = np.searchsorted(arrivals, times[:-1], "right") - np.searchsorted(
        ends, times[:-1], "right"
    )
    return times[:-1], times[1:], np.maximum(there - 1, 0).astype(float), arrivals[-1]


@pytest.mark.parametrize(("load", "grows"), [(0.5, 0), (0.8, 0), (1.1, 20), (1.5, 20)])
def test_a_queue_grows_where_more_comes_than_is_served(load, grows):
    found = 0
    for seed in range(20):
        starts, ends, waiting, last = queue(load, seed)
        found += trend(starts, ends, waiting, slice(last / 2, last)).exceeds(ENDED, load)
    assert found == grows


def test_a_trend_is_that_of_means_over_time():
    """A value that counts for longer weighs more, and gaps count as nothing."""
    starts, ends = np.array([0.0, 10.0, 30.0]), np.array([10.0, 20.0, 40.0])
    found = trend(starts, ends, np.array([1.0, 3.0, 8.0]), slice(0.0, 40.0))
    level = trend(starts[:1], ends[:1], np.array([5.0]), slice(0.0, 10.0))
    assert (level.chance, level.per_s) == (1.0, 0.0)
    means = np.repeat([1.0, 3.0, 0.0, 8.0], STRETCHES // 4)
    slopes = [
        (means[j] - means[i]) / (2 * (j - i))
        for i in range(STRETCHES)
        for j in range(i + 1, STRETCHES)
    ]
    assert found.per_s == pytest.approx(np.median(slopes))
    assert not found.exceeds(GOING_ON, rate=10.0)


def test_a_run_whose_queue_grows_is_stopped():
    slow = variant(*ONE[:-2], "workload.output={kind: fixed, value: 60}")
    stay_s = observe(Probe(slow, None, 0, 1)).metrics["e2e_mean_s"]
    held, beyond = (observe(Probe(slow, f / stay_s, 0, 600)) for f in (0.7, 2.0))
    assert (held.diverges, held.stopped) == (False, False)
    assert (beyond.diverges, beyond.stopped) == (True, True)
    assert held.counted > 400
    assert beyond.metrics == {}
    whole = observe(Probe(slow, 2.0 / stay_s, 0, 600, whole=True))
    assert (whole.diverges, whole.stopped) == (True, False)
    assert whole.metrics["ttft_mean_s"] > 50 * stay_s
