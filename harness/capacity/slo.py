"""Limits on what users feel: the most that a latency of a run may be, or of each request.

A limit on each request (`slo.ttft_s`) is one of a run's own options, by which `good_share` is the
share of the requests that keep all of them; `slo.good_share` is the least that it may be.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

from harness.errors import ConfigError
from harness.results.metrics import BY_NAME, METRICS
from harness.results.slo import SloSpec

PREFIX = "slo."
GOOD_SHARE = "good_share"
#: what `slo.good_share` is where only limits on requests are given
DEFAULT_GOOD_SHARE = 0.99
#: of the metrics in seconds those that are no latency
_TIMES = ("map_s", "makespan_s")
#: statistics of one latency that can only rise from one to the next
_RISING = ("p50", "p90", "p99")


def latency_metrics() -> tuple[str, ...]:
    """Return the metrics that a limit can be given for: latencies of requests, the less the better.

    They are those of docs/metrics.md, so that a latency that is added there can be limited.
    """
    return tuple(
        metric.name
        for metric in METRICS
        if metric.unit in ("s", "s/token")
        and metric.direction == "lower"
        and metric.deterministic
        and metric.name not in _TIMES
    )


def request_limits() -> tuple[str, ...]:
    """Return the limits on each request, which are options of a run."""
    return tuple(item.name for item in fields(SloSpec))


@dataclass(frozen=True)
class Limits:
    """at_most: from a metric's name to the largest value allowed, in the metric's unit.

    good_share: the least share of the requests that keep the limits on each; None: there are none.
    of_requests: those limits, by their names, seconds.
    """

    at_most: Mapping[str, float] = field(default_factory=dict)
    good_share: float | None = None
    of_requests: Mapping[str, float] = field(default_factory=dict)

    def broken(self, metrics: Mapping[str, float | int | None]) -> list[str]:
        """Return the metrics above their limit, the furthest above it first.

        A metric without a value breaks its limit: nothing shows that it was kept.
        """
        excess = {name: _excess(metrics.get(name), limit) for name, limit in self.at_most.items()}
        if self.good_share is not None:
            share = metrics.get(GOOD_SHARE)
            allowed = max(1.0 - self.good_share, 1e-9)
            # Of shares that are worked out in binary 0.99 may be a bit below 0.99.
            missed = None if share is None else max(0.0, 1.0 - share - 1e-12)
            excess[GOOD_SHARE] = _excess(missed, allowed)
        return sorted((name for name, by in excess.items() if by > 0), key=lambda n: -excess[n])

    def text(self, name: str) -> str:
        """Return the limit on a metric as one types it."""
        value = self.good_share if name == GOOD_SHARE else self.at_most[name]
        return f"{PREFIX}{name}={value:g}"

    def texts(self) -> list[str]:
        """Return the limits as one types them."""
        each = [f"{PREFIX}{name}={value:g}" for name, value in self.of_requests.items()]
        return [*each, *(self.text(name) for name in self.metrics)]

    @property
    def values(self) -> dict[str, float]:
        """Every limit by its name, those on each request and the share that keeps them too."""
        share = {} if self.good_share is None else {GOOD_SHARE: self.good_share}
        return {**self.of_requests, **share, **self.at_most}

    @property
    def metrics(self) -> list[str]:
        """The metrics that are limited."""
        return [*self.at_most, *[GOOD_SHARE] * (self.good_share is not None)]


def _excess(value: float | int | None, limit: float) -> float:
    return math.inf if value is None else value / limit - 1.0


def parse_limits(arguments: Sequence[str]) -> Limits:
    """Return the limits of arguments `slo.NAME=VALUE`.

    Those on each request are options of the run too, which counts who keeps them.
    Raises `ConfigError`, one line: an unknown name, what is no positive number, two values for one
    metric, or a limit that another one makes idle.
    """
    metrics, of_requests = latency_metrics(), request_limits()
    known = (*of_requests, GOOD_SHARE, *metrics)
    given: dict[str, float] = {}
    for argument in arguments:
        name, _, text = argument.removeprefix(PREFIX).partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {PREFIX}{near[0]}?)" if near else ""
            raise ConfigError(f"{PREFIX}{name}: no such limit{hint}; there are {', '.join(known)}")
        value = _positive(f"{PREFIX}{name}", text)
        if given.setdefault(name, value) != value:
            raise ConfigError(
                f"{PREFIX}{name}={given[name]:g} and {PREFIX}{name}={value:g} contradict each "
                "other: give one"
            )
    each = {name: value for name, value in given.items() if name in of_requests}
    share = given.get(GOOD_SHARE, DEFAULT_GOOD_SHARE if each else None)
    limits = Limits({n: value for n, value in given.items() if n in metrics}, share, each)
    _check_idle(limits)
    _check_share(share, bool(each))
    return limits


def _check_share(share: float | None, of_requests: bool) -> None:
    """Refuse a share without limits on requests, or one that is none."""
    if share is None:
        return
    if not of_requests:
        names = ", ".join(f"{PREFIX}{name}" for name in request_limits())
        raise ConfigError(f"{PREFIX}{GOOD_SHARE} counts requests that keep limits: give {names}")
    if share > 1.0:
        raise ConfigError(f"{PREFIX}{GOOD_SHARE} must be at most 1, got {share:g}")


def _positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        metric = BY_NAME.get(name.removeprefix(PREFIX))
        unit = "s" if metric is None else metric.unit
        raise ConfigError(f"{name} must be a positive number ({unit}), got {text!r}")
    return value


def _check_idle(limits: Limits) -> None:
    """Refuse a limit on a lower percentile that is not below that on a higher one."""
    families = {name.rsplit("_", 2)[0] for name in limits.at_most}
    for family in sorted(families):
        given = [n for s in _RISING if (n := f"{family}_{s}_s") in limits.at_most]
        for lower, higher in pairwise(given):
            if limits.at_most[lower] >= limits.at_most[higher]:
                raise ConfigError(
                    f"{PREFIX}{lower}={limits.at_most[lower]:g} contradicts {PREFIX}{higher}="
                    f"{limits.at_most[higher]:g}: the first is never above the second, so it must "
                    "be the smaller number; leave it out or lower it"
                )
