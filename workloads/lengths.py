"""Length distributions: each kind is a quantile function from a uniform number to whole tokens.

One uniform number a request keeps the draws of a run a prefix of those of a longer run, and lets
two distributions be compared on the same draws. A continuous law stands for whole tokens as
follows: k is the interval k - 0.5 .. k + 0.5, so a cut low..high (inclusive) that redraws
conditions the law on low - 0.5 .. high + 0.5; one that clips moves what lies beyond to the nearest
bound, as a server's limit on lengths does. Rounding then moves the mean by under 0.3 % from about
20 tokens on (at a mean of 2 tokens, where the law bends within one token, by some 4 %).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workloads import normal, tables
from workloads.errors import WorkloadError, number, one_of, whole
from workloads.formats.source import MAX_TOKENS
from workloads.requests import FloatArray, IntArray
from workloads.spec import LengthSpec

Quantile = Callable[[FloatArray], NDArray]

CUTS = ("redraw", "clip")
ZIPF_MAX_RANKS = 10_000_000  # its whole distribution is tabulated
SIGMA_MAX = 10.0  # a mean beyond exp(SIGMA_MAX**2 / 2) medians is no length distribution


def sample(spec: LengthSpec, n: int, rng: np.random.Generator, role: str) -> IntArray:
    """Draw `n` lengths in tokens, int64[n] >= 1, for `role` "prompt", "output" or "turns".

    Raises WorkloadError for an unknown kind (with the closest names), a missing or impossible
    parameter, an unreadable table, or a drawn length beyond MAX_TOKENS.
    """
    where = f"workload.{role}"
    kind = one_of(f"{where}.kind", spec.kind, KINDS)
    low = whole(f"{where}.low", spec.low, at_least=1, at_most=MAX_TOKENS)
    if spec.high is not None:
        high = whole(f"{where}.high", spec.high, at_least=1, at_most=MAX_TOKENS)
        if low > high:
            raise WorkloadError(f"{where}.low={low} is above {where}.high={high}")
    one_of(f"{where}.cut", spec.cut, CUTS)
    quantile = KINDS[kind](spec, where)
    drawn = np.rint(quantile(rng.random(n)))
    outside = ~((drawn >= 1) & (drawn <= MAX_TOKENS))
    if outside.any():
        raise WorkloadError(
            f"{where}: a length of {drawn[outside][0]:g} was drawn; expected 1 to {MAX_TOKENS} "
            f"tokens, set {where}.high"
        )
    return drawn.astype(np.int64)


def _high(spec: LengthSpec, where: str) -> int:
    if spec.high is None:
        raise WorkloadError(f"{where}.high is needed for {where}.kind={spec.kind}: tokens >= 1")
    return spec.high


def _cut(spec: LengthSpec) -> str:
    return f"{spec.low}..{'inf' if spec.high is None else spec.high}"


def _interval(spec: LengthSpec) -> tuple[float, float]:
    return spec.low - 0.5, math.inf if spec.high is None else spec.high + 0.5


def _within(values: NDArray, spec: LengthSpec) -> NDArray:
    # Half-integers round to even, so the very edge of the interval could leave the cut.
    return np.clip(np.rint(values), spec.low, spec.high)


def _fixed(spec: LengthSpec, where: str) -> Quantile:
    value = whole(f"{where}.value", spec.value, at_least=1, at_most=MAX_TOKENS)
    return lambda u: np.full(len(u), value)


def _uniform(spec: LengthSpec, where: str) -> Quantile:
    span = _high(spec, where) - spec.low + 1
    return lambda u: spec.low + np.floor(u * span)


def _normal(spec: LengthSpec, where: str) -> Quantile:
    mean = number(f"{where}.mean", spec.mean, at_most=MAX_TOKENS)
    std = number(f"{where}.std", spec.std, above=0)
    clip = spec.cut == "clip"
    edges = (-math.inf, math.inf) if clip else _interval(spec)
    first, last = ((edge - mean) / std for edge in edges)
    if first > normal.Z_MAX or last < -normal.Z_MAX:
        raise WorkloadError(
            f"{where}: a normal of mean {mean:g} and std {std:g} has nothing in {_cut(spec)}"
        )
    return lambda u: _within(mean + std * normal.quantile_between(u, first, last), spec)


def _geometric(spec: LengthSpec, where: str) -> Quantile:
    mean = number(f"{where}.mean", spec.mean, at_least=1, at_most=MAX_TOKENS)
    stay = 1 - 1 / mean  # P(length > k) = stay ** k
    clip = spec.cut == "clip"
    first = 1.0 if clip else stay ** (spec.low - 1)
    last = 0.0 if clip or spec.high is None else stay**spec.high
    if first <= last:
        raise WorkloadError(
            f"{where}: a geometric law of mean {mean:g} has nothing in {_cut(spec)}"
        )
    if stay == 0:
        return lambda u: _within(np.ones(len(u)), spec)
    return lambda u: _within(
        np.floor(np.log(first - u * (first - last)) / math.log(stay)) + 1, spec
    )


def _lognormal(spec: LengthSpec, where: str) -> Quantile:
    mean = number(f"{where}.mean", spec.mean, above=0, at_most=MAX_TOKENS)
    sigma = number(f"{where}.sigma", spec.sigma, above=0)
    if sigma > SIGMA_MAX:
        raise WorkloadError(f"{where}.sigma={sigma:g} is not allowed; expected <= {SIGMA_MAX:g}")
    clip = spec.cut == "clip"
    low, high = _interval(spec)
    if clip:
        low, high = float(spec.low), math.inf if spec.high is None else float(spec.high)
    mu = solve_mu(mean, sigma, low, high, where, clip)
    first, last = (-math.inf, math.inf) if clip else _standard(mu, sigma, low, high)
    return lambda u: _within(np.exp(mu + sigma * normal.quantile_between(u, first, last)), spec)


def _standard(mu: float, sigma: float, low: float, high: float) -> tuple[float, float]:
    """The cut in standard deviations of the logarithm."""
    last = (math.log(high) - mu) / sigma if math.isfinite(high) else math.inf
    return (math.log(low) - mu) / sigma, last


def cut_lognormal_mean(
    mu: float, sigma: float, low: float, high: float, clip: bool = False
) -> float:
    """Mean of exp(N(mu, sigma^2)) cut to `low`..`high` (high may be inf), by either kind of cut."""
    first, last = _standard(mu, sigma, low, high)
    inside = math.exp(mu + sigma * sigma / 2) * (
        normal.cdf(last - sigma) - normal.cdf(first - sigma)
    )
    if not clip:
        return inside / (normal.cdf(last) - normal.cdf(first))
    beyond = high * (1 - normal.cdf(last)) if math.isfinite(high) else 0.0
    return low * normal.cdf(first) + inside + beyond


def solve_mu(
    mean: float,
    sigma: float,
    low: float,
    high: float,
    where: str = "lognormal",
    clip: bool = False,
) -> float:
    """The mu with which the lognormal cut to `low`..`high` has this `mean`, by bisection.

    The mean of the cut law rises with mu. mu is searched where the cut still holds a part of the
    law within 5 sigma; a mean out of that reach raises WorkloadError with the range that works.
    """
    reach = 5 * sigma
    bottom = math.log(low) - reach
    # Without an upper cut the mean is at least exp(mu), which bounds mu from above.
    top = math.log(high) + reach if math.isfinite(high) else math.log(max(mean, low)) + 1
    smallest = cut_lognormal_mean(bottom, sigma, low, high, clip)
    largest = cut_lognormal_mean(top, sigma, low, high, clip)
    if not smallest <= mean <= largest:
        raise WorkloadError(
            f"{where}.mean={mean:g} is out of reach of a lognormal of sigma {sigma:g} after the "
            f"cut; expected {smallest:.4g} to {largest if math.isfinite(high) else math.inf:.4g}"
        )
    for _ in range(100):
        middle = (bottom + top) / 2
        if cut_lognormal_mean(middle, sigma, low, high, clip) < mean:
            bottom = middle
        else:
            top = middle
    return (bottom + top) / 2


def _zipf(spec: LengthSpec, where: str) -> Quantile:
    exponent = number(f"{where}.exponent", spec.exponent, at_least=0)
    high = _high(spec, where)
    if high - spec.low >= ZIPF_MAX_RANKS:
        raise WorkloadError(f"{where}.high={high} is too far for zipf: {ZIPF_MAX_RANKS} lengths")
    return lambda u: spec.low + zipf_ranks(u, high - spec.low + 1, exponent, first=spec.low)


def zipf_ranks(u: FloatArray, count: int, exponent: float, first: int = 1) -> IntArray:
    """Ranks 0..`count` - 1 at `u`, int64[n], with P(r) proportional to (r + first)**-exponent."""
    logs = -exponent * np.log(np.arange(first, first + count, dtype=np.float64))
    cumulative = np.cumsum(np.exp(logs - logs[0]))  # relative to the first: no underflow
    return np.searchsorted(cumulative, u * cumulative[-1], side="right").clip(0, count - 1)


def _empirical(spec: LengthSpec, where: str) -> Quantile:
    """Independent draws of one column: a correlation of prompt and output is not kept."""
    if (spec.path is None) == (spec.table is None):
        raise WorkloadError(
            f"{where}: kind=empirical needs either path (a CSV) or table "
            f"(one of {', '.join(tables.shipped())})"
        )
    path = spec.path if spec.path is not None else tables.shipped_path(spec.table, where)
    role = where.rsplit(".", 1)[-1]
    levels, lengths = tables.read_quantiles(path, spec.column, role)
    low, high = _interval(spec)
    if levels is None:
        kept = lengths[(lengths > low) & (lengths < high)]
        if not len(kept):
            raise WorkloadError(f"{where}: {path} has no length in {_cut(spec)}")
        return lambda u: kept[(u * len(kept)).astype(np.int64)]
    first = np.interp(low, lengths, levels, left=0.0)
    last = np.interp(high, lengths, levels, right=1.0) if math.isfinite(high) else 1.0
    if first >= last:
        raise WorkloadError(f"{where}: {path} has no length in {_cut(spec)}")
    return lambda u: _within(np.interp(first + u * (last - first), levels, lengths), spec)


KINDS: dict[str, Callable[[LengthSpec, str], Quantile]] = {
    "fixed": _fixed,
    "uniform": _uniform,
    "normal": _normal,
    "geometric": _geometric,
    "lognormal": _lognormal,
    "zipf": _zipf,
    "empirical": _empirical,
}
