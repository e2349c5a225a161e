"""Length distributions: the means they promise, their bounds, and the errors they give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import LengthSpec, WorkloadError, lengths, normal


class MidPoints:
    """Stands in for a generator: the n mid-quantiles, so that a sample mean has no noise."""

    def random(self, n):
        return (np.arange(n) + 0.5) / n


def draw(n=200_000, rng=None, role="prompt", **spec):
    return lengths.sample(LengthSpec(**spec), n, rng or MidPoints(), role)


@pytest.mark.parametrize(
    ("mean", "sigma"), [(161.31, 1.2), (337.99, 1.0), (19.31, 0.66), (58.45, 0.82)]
)
def test_lognormal_has_the_mean_after_the_cut_and_rounding(mean, sigma):
    drawn = draw(kind="lognormal", mean=mean, sigma=sigma, low=1, high=1024)
    assert drawn.mean() == pytest.approx(mean, rel=3e-3)
    assert drawn.min() >= 1
    assert drawn.max() <= 1024


def test_lognormal_mean_from_random_draws_is_within_sampling_noise():
    rng = np.random.default_rng(5)
    drawn = draw(rng=rng, kind="lognormal", mean=337.99, sigma=1.0, low=1, high=1024)
    assert abs(drawn.mean() - 337.99) < 4 * drawn.std() / len(drawn) ** 0.5


def test_lognormal_without_upper_cut_keeps_its_mean():
    drawn = draw(kind="lognormal", mean=200, sigma=0.5, low=1)
    assert drawn.mean() == pytest.approx(200, rel=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(1, 500),
    width=st.integers(1, 20_000),
    sigma=st.floats(0.05, 3),
    where=st.floats(0.2, 0.8),
)
def test_lognormal_solves_or_says_what_is_in_reach(low, width, sigma, where):
    mean = low + where * width
    try:
        mu = lengths.solve_mu(mean, sigma, low - 0.5, low + width + 0.5)
    except WorkloadError:
        with pytest.raises(WorkloadError, match="out of reach"):
            lengths.solve_mu(mean, sigma, low - 0.5, low + width + 0.5)
        return
    assert lengths.cut_lognormal_mean(mu, sigma, low - 0.5, low + width + 0.5) == pytest.approx(
        mean, rel=1e-6
    )


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["uniform", "normal", "lognormal", "zipf"]),
    low=st.integers(1, 50),
    width=st.integers(0, 3000),
    seed=st.integers(0, 99),
)
def test_every_cut_is_inclusive_and_whole(kind, low, width, seed):
    spec = {"std": 40.0, "sigma": 1.0, "exponent": 1.1, "mean": low + width / 2}
    drawn = draw(200, np.random.default_rng(seed), kind=kind, low=low, high=low + width, **spec)
    assert drawn.dtype == np.int64
    assert low <= drawn.min()
    assert drawn.max() <= low + width


def test_fixed_uniform_normal_and_zipf_follow_their_law():
    assert set(draw(100, kind="fixed", value=7)) == {7}
    values, counts = np.unique(draw(6000, kind="uniform", low=3, high=8), return_counts=True)
    assert list(values) == [3, 4, 5, 6, 7, 8]
    assert set(counts) == {1000}
    drawn = draw(kind="normal", mean=500, std=50, low=1)
    assert drawn.mean() == pytest.approx(500, abs=0.05)
    assert drawn.std() == pytest.approx(50, rel=2e-3)
    counts = np.bincount(draw(kind="zipf", exponent=2, low=1, high=3))[1:]
    assert counts / counts.sum() == pytest.approx(np.array([36, 9, 4]) / 49, abs=1e-4)


def test_normal_quantiles_agree_with_known_values():
    z = normal.quantile_between(np.array([0.5, 0.975, 0.999]), -np.inf, np.inf)
    assert z == pytest.approx([0.0, 1.959964, 3.090232], abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "lognorml"}, "did you mean lognormal or normal?"),
        ({"kind": "uniform"}, "workload.prompt.high is needed"),
        ({"kind": "uniform", "low": 9, "high": 3}, "workload.prompt.low=9 is above"),
        ({"kind": "uniform", "low": 0, "high": 3}, "workload.prompt.low=0 is not allowed"),
        ({"kind": "fixed"}, "workload.prompt.value is needed"),
        ({"kind": "fixed", "value": 0}, "workload.prompt.value=0"),
        ({"kind": "normal", "mean": float("nan"), "std": 1.0}, "workload.prompt.mean=nan"),
        ({"kind": "normal", "mean": 10.0, "std": 0.0}, "expected a finite number > 0"),
        ({"kind": "normal", "mean": -900.0, "std": 1.0}, "has nothing in 1..inf"),
        ({"kind": "lognormal", "mean": 10.0, "sigma": float("inf")}, "sigma=inf"),
        ({"kind": "lognormal", "mean": 10.0, "sigma": 99.0}, "expected <= 10"),
        ({"kind": "lognormal", "mean": 2000.0, "sigma": 1.0, "high": 1024}, "out of reach"),
        ({"kind": "zipf", "exponent": -1.0, "high": 9}, "exponent=-1"),
        ({"kind": "empirical"}, "needs either path"),
        ({"kind": "empirical", "table": "alpaca_llama"}, "did you mean alpaca_llama2"),
    ],
)
def test_bad_parameters_name_the_key(spec, message):
    with pytest.raises(WorkloadError) as caught:
        draw(5, **spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mean", "sigma"), [(337.99, 1.0), (161.31, 1.2), (58.45, 1.1)])
def test_clipped_lognormal_keeps_the_mean_and_piles_up_at_the_bound(mean, sigma):
    spec = {"kind": "lognormal", "mean": mean, "sigma": sigma, "low": 1, "high": 1024}
    clipped = draw(cut="clip", **spec)
    assert clipped.mean() == pytest.approx(mean, rel=0.003)
    assert clipped.min() >= 1
    assert clipped.max() == 1024
    assert (clipped == 1024).sum() > (draw(**spec) == 1024).sum()


def test_unknown_cut_is_refused():
    with pytest.raises(WorkloadError, match=r"workload\.output\.cut"):
        draw(n=1, value=3, cut="chop", role="output")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"value": 10**19}, f"workload.prompt.value={10**19} is not allowed; expected a finite"),
        ({"value": 10**400}, ">= 1 and <= 2147483647"),
        ({"value": 1, "low": 2**31}, "workload.prompt.low=2147483648 is not allowed"),
        ({"kind": "uniform", "high": 10**19}, f"workload.prompt.high={10**19} is not allowed"),
        ({"kind": "geometric", "mean": 1e18}, "workload.prompt.mean=1e+18 is not allowed"),
        ({"kind": "normal", "mean": 1e18, "std": 1.0}, "workload.prompt.mean=1e+18"),
        ({"kind": "lognormal", "mean": 1e300, "sigma": 10.0}, "workload.prompt.mean=1e+300"),
        ({"kind": "normal", "mean": 1.0, "std": 1e30}, "expected 1 to 2147483647 tokens, set work"),
    ],
)
def test_lengths_beyond_any_request_are_refused(spec, message):
    with pytest.raises(WorkloadError) as caught:
        draw(5, **spec)
    assert message in str(caught.value)
    assert str(caught.value).startswith("workload.prompt")
    assert "\n" not in str(caught.value)


def test_the_longest_lengths_are_drawn_as_they_are():
    longest = 2**31 - 1
    assert set(draw(5, kind="fixed", value=longest)) == {longest}
    assert draw(5, kind="uniform", low=longest - 1, high=longest).max() == longest
