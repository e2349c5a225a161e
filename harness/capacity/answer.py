"""From what was found to the numbers that are shown: intervals, ratios, tokens and their price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from harness.capacity.search import Capacity
from harness.results.limits import main_limit

#: of every interval
CONFIDENCE = 0.95
MILLION = 1e6
#: the least share of the time for which a limit is worth being named
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % confidence interval; None where there is one sample only."""

    mean: float
    low: float | None = None
    high: float | None = None


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent replications with its interval, by Student's t."""
    mean, n = fmean(values), len(values)
    if n < 2:
        return Interval(mean)
    # With the function: SciPy takes longer to load than a run.
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def rate(capacity: Capacity) -> Interval:
    """Return the highest rate that holds, a second: the mean over seeds of those that did.

    The upper end is that of the rates above them, which did not: what halving leaves open is in.
    """
    low = interval([held.below.rate or 0.0 for held in capacity.held])
    high = interval([held.above.rate or 0.0 for held in capacity.held])
    return Interval(low.mean, low.low, high.high)


def ratio(of: Capacity, to: Capacity) -> Interval:
    """Return how many times the capacity of `to` that of `of` is, from seeds that both have.

    The requests of a seed are the same in both, so that the ratio varies less than either.
    """
    others = {held.seed: held.below.rate for held in to.held}
    logs = [
        math.log((held.below.rate or 0.0) / (others[held.seed] or 0.0))
        for held in of.held
        if held.seed in others
    ]
    found = interval(logs)
    ends = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Interval(math.exp(found.mean), *ends)


@dataclass(frozen=True)
class Row:
    """One variant's answer.

    capacity: what it is made of; rate, of_best: see `rate` and `ratio`, None where no rate holds.
    metrics: means over the seeds, at the highest rate that held.
    """

    capacity: Capacity
    rate: Interval | None = None
    of_best: Interval | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.capacity.variant.label

    @property
    def idealised(self) -> bool:
        return self.capacity.variant.idealised

    @property
    def limited_by(self) -> tuple[str, float] | None:
        """What kept the next request out for longest, and its share of the time.

        None where nobody waited to be let in for 1 % of it.
        """
        waited = {**self.metrics, "limited_by_nobody_share": None}
        found = main_limit(waited)
        return found if found is not None and found[1] >= LEAST_SHARE else None

    def per_gpu(self, metric: str) -> float | None:
        """Return a metric divided by the number of GPUs."""
        value = self.metrics.get(metric)
        return None if value is None else value / self.capacity.variant.gpus

    def price(self, metric: str, price_per_gpu_hour: float | None) -> float | None:
        """Return what a million tokens cost, of `output_tokens_per_s` or `total_tokens_per_s`."""
        per_s = self.per_gpu(metric)
        if not per_s or price_per_gpu_hour is None:
            return None
        return price_per_gpu_hour / 3600 / per_s * MILLION


def rows_of(found: Sequence[Capacity]) -> list[Row]:
    """Return a row for each variant, in order."""
    held = [capacity for capacity in found if capacity.held]
    best = max(held, key=lambda capacity: rate(capacity).mean, default=None)
    rows = []
    for capacity in found:
        if best is None or not capacity.held:
            rows.append(Row(capacity))
            continue
        means = _means([each.below.metrics for each in capacity.held])
        rows.append(Row(capacity, rate(capacity), ratio(capacity, best), means))
    return rows


def _means(metrics: Sequence) -> dict[str, float]:
    """Return the mean of each metric that has a value in every run."""
    names = [name for name in metrics[0] if all(m.get(name) is not None for m in metrics)]
    return {name: fmean(float(m[name]) for m in metrics) for name in names}
