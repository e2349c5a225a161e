"""Two sets of samples from a clock: how far apart, and could it be chance?

The ratio of medians with a bootstrap interval says how far; the Mann-Whitney U test says whether.
With few samples the test cannot reach any level however far apart the sets are, and then nothing
is called a change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 5000
#: up to this many samples a side the null distribution is counted, beyond it is close to normal
EXACT = 20


def median_ratio(
    baseline: Sequence[float], current: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float] | None:
    """(ratio of medians current / baseline, low, high): percentile bootstrap interval.

    Deterministic. None where the baseline's median is not above zero.
    """
    old, new = np.asarray(baseline, dtype=float), np.asarray(current, dtype=float)
    if np.median(old) <= 0:
        return None
    rng = np.random.default_rng(0)
    olds = np.median(rng.choice(old, (RESAMPLES, len(old))), axis=1)
    news = np.median(rng.choice(new, (RESAMPLES, len(new))), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = news / olds
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(ratios, (tail, 100 - tail))
    return float(np.median(new) / np.median(old)), float(low), float(high)


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
    values = np.concatenate([baseline, current]).astype(float)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = ((ends - counts + 1 + ends) / 2)[inverse]
    u = float(ranks[:n].sum() - n * (n + 1) / 2)
    if len(counts) == n + m and n <= EXACT and m <= EXACT:
        ways = _ways(n, m)
        below = float(ways[: int(min(u, n * m - u)) + 1].sum())
        return min(1.0, 2 * below / math.comb(n + m, n))
    total = n + m
    ties = float((counts**3 - counts).sum()) / (total * (total - 1))
    spread = math.sqrt(n * m / 12 * (total + 1 - ties))
    if spread == 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / spread
    return math.erfc(z / math.sqrt(2))


def _ways(n: int, m: int) -> np.ndarray:
    """[n * m + 1] orders of n and m samples that give each U: Gaussian binomial coefficients."""
    ways = np.zeros(n * m + 1, dtype=np.int64)
    ways[0] = 1
    for i in range(1, n + 1):
        # Times (1 - x^(m + i)), then divided by (1 - x^i).
        if m + i < len(ways):
            ways[m + i :] -= ways[: len(ways) - m - i].copy()
        for first in range(i):
            ways[first::i] = np.cumsum(ways[first::i])
    return ways
