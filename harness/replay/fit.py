"""Fits a software profile on the first half of a measured run, to be checked on the second.

The halves are by time of arrival, or by order where times are not known.  Whole steps are simulated
with all requests in them, those of the second half included: of these the lengths and arrivals are
used, and no latency.  The fit is a bounded least squares, with a soft loss, on logarithms of
simulated over measured: of means over tenths of the requests, by length and by time, of the time to
first token and of the time per output token.  Not of single requests: whether one just catches a
step or waits for the next turns on microseconds, so their derivatives are noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from omegaconf import DictConfig

from harness.comparison import Prepared
from harness.cost.software import SoftwareSpec
from harness.cost.spec import CostSpec
from harness.replay.compared import Side, part_of, request_errors, sides
from harness.replay.errors import ReplayError
from harness.replay.measured import MeasuredRun
from harness.replay.simulate import prepare_replay, simulate
from workloads.requests import FloatArray, IntArray


@dataclass(frozen=True)
class Constant:
    """A constant that is fitted: a difference of `scale` is one that counts."""

    name: str
    scale: float
    least: float
    most: float


CONSTANTS = (
    Constant("step_us", 2000.0, 0.0, 1e5),
    Constant("sequence_us", 20.0, 0.0, 1e4),
    Constant("token_us", 2.0, 0.0, 1e3),
    Constant("prefill_us", 2000.0, 0.0, 1e5),
    Constant("request_us", 5000.0, 0.0, 1e6),
    # The roofline reads weights at a share of the memory's peak, which nothing exceeds.
    Constant("weight_read_slowdown", 0.2, CostSpec().weight_bandwidth_efficiency, 5.0),
)
#: requests in a half, below which the constants are a guess
FEWEST = 20
#: groups of requests in each order
GROUPS = 10
#: a derivative's step, in scales: wide enough that single requests' luck averages out
DERIVATIVE = 0.5
#: how much a constant that the file does not tell stays where it was
PULL = 0.05
#: a residual, as a logarithm, from which on it counts by its distance
SOFT = 0.1
#: at most so many steps, each halved so often; the last is one that gains less than ENOUGH
ROUNDS, HALVINGS, ENOUGH = 8, 4, 0.002


@dataclass(frozen=True)
class Fit:
    """What came of it: the profile, and both halves before and after.

    fitted, checked: the places of their requests among those that are simulated.  errors: by half
    and moment (`fitted`, `checked`; `before`, `after`) the errors of the means and of single
    requests.
    """

    software: SoftwareSpec
    start: SoftwareSpec
    fitted: IntArray
    checked: IntArray
    simulations: int
    errors: dict[str, dict[str, dict[str, float]]]

    @property
    def options(self) -> list[str]:
        """The overrides that take the fitted constants."""
        return [f"software.{c.name}={getattr(self.software, c.name):g}" for c in CONSTANTS]

    @property
    def at_bounds(self) -> list[str]:
        """A line for each constant that stands where it may go no further."""
        return [
            f"software.{c.name} ends at {c.most if up else c.least:g}, as far as it may go: the "
            "time lies in something that no constant of the software tells of (another GPU, a "
            "prefix cache, another number of sequences?)"
            for c in CONSTANTS
            for up in (False, True)
            if (c.least or up)
            and abs(getattr(self.software, c.name) - (c.most if up else c.least)) < 0.01 * c.scale
        ]


def halves(measured: MeasuredRun, rows: IntArray) -> tuple[IntArray, IntArray]:
    """The places among `rows` that are fitted on, and those that are checked on."""
    if measured.arrival_s is None or not measured.arrival_s.any():
        first = np.arange(len(rows)) < len(rows) // 2
    else:
        arrival_s = measured.arrival_s[rows]
        first = arrival_s <= (arrival_s[0] + arrival_s[-1]) / 2
    parts = np.flatnonzero(first), np.flatnonzero(~first)
    if min(map(len, parts)) < FEWEST:
        raise ReplayError(
            f"fit=true needs at least {FEWEST} requests in each half of the run, got "
            f"{len(parts[0])} and {len(parts[1])}"
        )
    return parts


def fit(
    where: str,
    measured: MeasuredRun,
    composed: DictConfig,
    prepared: Prepared,
    progress: Callable[[str], None],
) -> Fit:
    """Fit the profile that `prepared` starts from.  Raises ReplayError for too few requests."""
    rows = prepared.requests.ids
    places = np.array([int(row) for row in rows or []])
    first, second = halves(measured, places)
    # Those that come after the last of the first half has ended are nothing to it.
    needed = np.arange(int(first[-1]) + 1)
    if measured.arrival_s is not None:
        end_s = (measured.arrival_s + measured.e2e_s)[places[first]].max()
        needed = np.flatnonzero(measured.arrival_s[places] <= end_s)
    part = measured.take(places[needed])
    smaller = prepare_replay(where, part, composed)
    start = prepared.config.software
    begin = np.array([getattr(start, c.name) for c in CONSTANTS], dtype=np.float64)
    scales = np.array([c.scale for c in CONSTANTS])
    counted = _Counted(part, smaller, start, first, begin / scales, progress)
    found = _search(counted, scales)
    software = _profile(start, found)
    pairs = {
        "before": sides(measured, simulate(prepared)),
        "after": sides(measured, simulate(with_software(prepared, software))),
    }
    errors = {
        half: {
            moment: _errors(*(part_of(side, chosen) for side in pair))
            for moment, pair in pairs.items()
        }
        for half, chosen in (("fitted", first), ("checked", second))
    }
    return Fit(software, start, first, second, counted.simulations, errors)


def with_software(prepared: Prepared, software: SoftwareSpec) -> Prepared:
    """The same run with another profile."""
    config = replace(prepared.config, software=software)
    saved = {**prepared.saved, "software": vars(software)}
    return replace(prepared, config=config, saved=saved, _unused={})


class _Counted:
    """The residuals of the first half, and how often they were asked for."""

    def __init__(
        self,
        measured: MeasuredRun,
        prepared: Prepared,
        start: SoftwareSpec,
        first: IntArray,
        begin: FloatArray,
        progress: Callable[[str], None],
    ) -> None:
        self._measured, self._prepared, self._start = measured, prepared, start
        self._first, self.begin, self._progress = first, begin, progress
        self.simulations = 0

    def __call__(self, x: FloatArray) -> FloatArray:
        """[4 x groups + constants] residuals of constants in their scales."""
        software = _profile(self._start, x)
        pair = sides(self._measured, simulate(with_software(self._prepared, software)))
        true, ours = (part_of(side, self._first) for side in pair)
        self.simulations += 1
        self._progress(f"fit: simulation {self.simulations}, {_said(_errors(true, ours))}")
        several = np.flatnonzero(true.output_tokens > 1)
        residuals = [PULL * (x - self.begin)]
        for values, by in (
            ([side.ttft_s for side in (ours, true)], true.prompt_tokens),
            ([side.values("tpot") for side in (ours, true)], true.output_tokens[several]),
        ):
            if len(by):
                residuals += [_log_means(*values, by), _log_means(*values, np.arange(len(by)))]
        return np.concatenate(residuals)

    def slopes(self, x: FloatArray, base: FloatArray) -> FloatArray:
        """[residuals, constants] by a step upwards in each constant from `base`, those at x."""
        steps = np.eye(len(x)) * DERIVATIVE
        return np.stack([(self(x + step) - base) / DERIVATIVE for step in steps], axis=1)


def _search(counted: _Counted, scales: FloatArray) -> FloatArray:
    """The constants in their scales, by Gauss-Newton steps that are halved until they help.

    Bounds are part of each linear step: a constant may stand at 0 and leave it again.
    """
    from scipy.optimize import lsq_linear

    least = np.array([c.least for c in CONSTANTS]) / scales
    most = np.array([c.most for c in CONSTANTS]) / scales
    x = np.clip(counted.begin, least, most)
    residuals = counted(x)
    for _ in range(ROUNDS):
        slopes = counted.slopes(x, residuals)
        # Of a soft loss: what is far off counts by its distance, not by its square.
        weights = (1 + (residuals / SOFT) ** 2) ** -0.25
        step = lsq_linear(
            slopes * weights[:, None],
            -residuals * weights,
            bounds=(least - x - 1e-12, most - x + 1e-12),
        ).x
        for _ in range(HALVINGS):
            tried = np.clip(x + step, least, most)
            found = counted(tried)
            if _loss(found) < _loss(residuals):
                break
            step = step / 2
        else:
            return x
        gained = 1 - _loss(found) / _loss(residuals)
        x, residuals = tried, found
        if gained < ENOUGH:
            return x
    return x


def _loss(residuals: FloatArray) -> float:
    return float((np.sqrt(1 + (residuals / SOFT) ** 2) - 1).sum())


def _profile(start: SoftwareSpec, x: FloatArray) -> SoftwareSpec:
    # Four digits: what is printed is what was simulated.
    scaled = {c.name: float(c.scale * v) for c, v in zip(CONSTANTS, x, strict=True)}
    values = {name: float(f"{round(value, 3):.4g}") for name, value in scaled.items()}
    return replace(start, name=f"{start.name}, fitted", **values)


def _log_means(ours: FloatArray, true: FloatArray, by: IntArray) -> FloatArray:
    """[groups] logarithms of the ratio of the means over requests that are alike in `by`."""
    groups = np.array_split(np.argsort(by, kind="stable"), min(GROUPS, len(by)))
    # A microsecond is added, for a time may be 0.
    means = [(ours[group].mean() + 1e-6) / (true[group].mean() + 1e-6) for group in groups]
    return np.log(means)


def _errors(true: Side, ours: Side) -> dict[str, float]:
    """Errors of the means of each latency, and the mean error of a single request."""
    found = {}
    for name in ("ttft", "tpot", "e2e"):
        left, right = true.values(name), ours.values(name)
        if left is not None and right is not None and len(left) and left.mean() > 0:
            found[name] = float(right.mean() / left.mean() - 1)
    singles = request_errors(true, ours)
    return {**found, **{f"single_{name}": value for name, value in singles.items()}}


def _said(errors: dict[str, float]) -> str:
    names = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}
    return ", ".join(f"{names[n]} {100 * errors[n]:+.1f} %" for n in names if n in errors)
