"""Weighted gaps say what NumPy says of all gaps written out, however they came."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness.results.token_gaps as token_gaps
from harness.results.token_gaps import TokenGaps

PERCENTS = (0, 1, 37.5, 50, 90, 99, 99.9, 100)
seconds = st.one_of(st.sampled_from([0.0, 0.01, 0.02]), st.floats(0, 1e6, allow_subnormal=False))
pairs = st.lists(st.tuples(seconds, st.integers(1, 9)), min_size=1, max_size=60)


def gathered(pairs, parts=1, **options):
    gaps = TokenGaps(**options)
    for part in np.array_split(np.arange(len(pairs)), parts):
        values = np.array([pairs[i][0] for i in part], dtype=np.float64)
        counts = np.array([pairs[i][1] for i in part], dtype=np.int64)
        gaps.add(values, counts)
        values[:], counts[:] = -1.0, -1  # as an engine does that writes its memory again
    return gaps


@settings(deadline=None, max_examples=300)
@given(pairs=pairs, parts=st.integers(1, 7))
def test_percentiles_are_those_of_numpy_to_the_bit(pairs, parts):
    written_out = np.repeat(*map(np.array, zip(*pairs, strict=True)))
    gaps = gathered(pairs, parts)
    assert gaps.percentiles(PERCENTS) == np.percentile(written_out, PERCENTS).tolist()
    assert gaps.mean() == pytest.approx(written_out.mean(), rel=1e-12)
    values, counts = gaps.values()
    assert (np.diff(values) > 0).all()
    assert counts.sum() == len(written_out)


@pytest.mark.parametrize("gathers", [1, 5, 1 << 18])
def test_beyond_the_most_values_the_error_is_bounded_and_the_order_does_not_matter(
    gathers, monkeypatch
):
    monkeypatch.setattr(token_gaps, "GATHERED", gathers)
    rng = np.random.default_rng(0)
    drawn = rng.lognormal(-4, 1.5, 3000)
    counts = rng.integers(1, 5, 3000)
    pairs = list(zip(drawn.tolist(), counts.tolist(), strict=True))
    gaps = gathered(pairs, 40, most_values=500)
    shuffled = gathered([pairs[i] for i in rng.permutation(3000)], 3, most_values=500)
    written_out = np.repeat(drawn, counts)
    exact = np.percentile(written_out, PERCENTS)
    found = np.array(gaps.percentiles(PERCENTS))
    assert 0 < np.abs(found / exact - 1).max() <= 2.0**-13
    assert gaps.mean() == pytest.approx(written_out.mean(), rel=2.0**-13)
    for ours, theirs in zip(gaps.values(), shuffled.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert gaps.values()[1].sum() == counts.sum()


def test_rounded_values_are_few_whatever_their_number():
    gaps = TokenGaps(most_values=1000)
    rng = np.random.default_rng(1)
    for _ in range(8):
        gaps.add(rng.uniform(0.01, 0.02, 100_000), np.ones(100_000, np.int64))
    assert len(gaps.values()[0]) <= 2 * 4096 + 1


def test_without_gaps_nothing_is_defined():
    gaps = TokenGaps()
    gaps.add(np.empty(0), np.empty(0, np.int64))
    assert gaps.mean() is None
    assert gaps.percentiles((50, 99)) == [None, None]
