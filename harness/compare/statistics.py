"""Two sets of samples from a clock: how far apart, and could it be chance?

The ratio of medians with a bootstrap interval says how far; the Mann-Whitney U test says whether.
With few samples the test cannot reach any level however far apart the sets are, and then nothing
is called a change.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

RESAMPLES = 5000
#: up to this many samples a side the null distribution is counted, beyond it is close to normal
EXACT = 20


def median_ratio(
    baseline: Sequence[float], current: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float] | None:
    """(ratio of medians current / baseline, low, high): percentile bootstrap interval.

    Deterministic. None where the baseline's median is not above zero; `high` is infinite where more
    resamples than the tail holds have a baseline of zero.
    """
    old, new = np.asarray(baseline, dtype=float), np.asarray(current, dtype=float)
    if np.median(old) <= 0:
        return None
    ratio = float(_median_ratio(old, new))
    if len(old) == len(new) == 1:
        return ratio, ratio, ratio
    # Not with the module: single runs, which are most comparisons, need not wait for SciPy.
    from scipy.stats import bootstrap

    # SciPy wants two values a side; one value drawn from twice the same is what it was.
    sides = [np.repeat(side, 2) if len(side) == 1 else side for side in (old, new)]
    with warnings.catch_warnings():
        # A resample whose baseline is 0 has no ratio, and no resampling mends that.
        warnings.simplefilter("ignore", RuntimeWarning)
        drawn = bootstrap(
            sides,
            _median_ratio,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
        # Not SciPy's own interval, which is undefined if a single resample is.
        tail = 50 * (1 - confidence)
        low, high = np.nanpercentile(drawn, (tail, 100 - tail))
    # Between two infinite ratios NumPy interpolates to NaN.
    return ratio, float(low), math.inf if math.isnan(high) else float(high)


def _median_ratio(old: np.ndarray, new: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.median(new, axis=axis) / np.median(old, axis=axis)


def smallest_p(n: int, m: int) -> float:
    """The smallest two-sided p value that `n` and `m` samples without ties can give."""
    return min(1.0, 2.0 / math.comb(n + m, n)) if n and m else 1.0


def samples_needed(level: float) -> int:
    """How many samples a side the test needs to be able to reach a level."""
    n = 1
    while smallest_p(n, n) >= level:
        n += 1
    return n


def mann_whitney_p(baseline: Sequence[float], current: Sequence[float]) -> float:
    """Two-sided p value that both come from one distribution (Mann and Whitney, 1947).

    Exact for up to EXACT samples a side without ties; else the normal approximation with the
    corrections for ties and for continuity.
    """
    n, m = len(baseline), len(current)
    if not n or not m:
        return 1.0
    from scipy.stats import mannwhitneyu  # not with the module: see `median_ratio`

    untied = len(np.unique([*baseline, *current])) == n + m
    exact = untied and max(n, m) <= EXACT
    return float(mannwhitneyu(baseline, current, method="exact" if exact else "asymptotic").pvalue)
