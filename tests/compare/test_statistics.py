"""The tests of significance, against counting and against known values."""

import math
from itertools import combinations

import numpy as np
import pytest

from harness.compare.statistics import (
    mann_whitney_p,
    median_ratio,
    samples_needed,
    smallest_p,
)


def counted_p(old, new):
    """Two-sided p by trying every way to deal the values out."""
    values = np.concatenate([old, new])
    n = len(old)

    def u(chosen):
        others = np.delete(values, chosen)
        return sum((values[i] > others).sum() for i in chosen)

    observed = u(list(range(n)))
    size = min(observed, n * len(new) - observed)
    all_u = [u(list(chosen)) for chosen in combinations(range(len(values)), n)]
    return min(1.0, 2 * sum(value <= size for value in all_u) / len(all_u))


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (4, 4), (3, 6), (5, 5)])
def test_exact_p_is_that_of_counting(sizes):
    rng = np.random.default_rng(sum(sizes))
    for shift in (0.0, 0.5, 2.0):
        old, new = rng.normal(0, 1, sizes[0]), rng.normal(shift, 1, sizes[1])
        assert mann_whitney_p(old, new) == pytest.approx(counted_p(old, new))


def test_normal_approximation_is_close_to_exact():
    rng = np.random.default_rng(3)
    old, new = rng.normal(0, 1, 20), rng.normal(0.7, 1, 20)
    exact = mann_whitney_p(old, new)
    # One more sample that changes little, and the approximation is used.
    approximate = mann_whitney_p([*old, 0.0], new)
    assert approximate == pytest.approx(exact, rel=0.3)


def test_ties_and_empty_sides():
    assert mann_whitney_p([1, 1, 1], [1, 1, 1]) == 1.0
    assert mann_whitney_p([], [1]) == 1.0
    assert mann_whitney_p([1, 1, 2, 2], [1, 1, 2, 2]) == pytest.approx(1.0)


def test_few_samples_cannot_reach_a_level():
    assert smallest_p(3, 3) == pytest.approx(2 / math.comb(6, 3))
    assert smallest_p(1, 0) == 1.0
    assert samples_needed(0.05) == 4
    n = samples_needed(0.001)
    assert smallest_p(n, n) < 0.001 <= smallest_p(n - 1, n - 1)


def test_false_alarms_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(4)
    alarms = sum(mann_whitney_p(*rng.normal(0, 1, (2, 8))) < 0.05 for _ in range(2000))
    assert alarms / 2000 < 0.06


def test_interval_of_the_ratio_covers_it():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        old, new = rng.lognormal(0, 0.1, 15), rng.lognormal(math.log(1.3), 0.1, 15)
        ratio, low, high = median_ratio(old, new)
        assert low <= ratio <= high
        covered += low <= 1.3 <= high
    assert covered >= 88
    assert median_ratio([0.0], [1.0]) is None
