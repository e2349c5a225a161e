"""Limits on what users feel: the most that a latency metric of a run may be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.errors import ConfigError
from harness.results.metrics import BY_NAME, METRICS

PREFIX = "slo."
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


@dataclass(frozen=True)
class Limits:
    """at_most: from a metric's name to the largest value allowed, in the metric's unit."""

    at_most: Mapping[str, float] = field(default_factory=dict)

    def broken(self, metrics: Mapping[str, float | int | None]) -> list[str]:
        """Return the metrics above their limit, the furthest above it first.

        A metric without a value breaks its limit: nothing shows that it was kept.
        """
        excess = {name: _excess(metrics.get(name), limit) for name, limit in self.at_most.items()}
        return sorted((name for name, by in excess.items() if by > 0), key=lambda n: -excess[n])

    def texts(self) -> list[str]:
        """Return the limits as one types them."""
        return [f"{PREFIX}{name}={limit:g}" for name, limit in self.at_most.items()]


def _excess(value: float | int | None, limit: float) -> float:
    return math.inf if value is None else value / limit - 1.0


def parse_limits(arguments: Sequence[str]) -> Limits:
    """Return the limits of arguments `slo.METRIC=VALUE`.

    Raises `ConfigError`, one line: an unknown metric, what is no positive number, two values for
    one metric, or a limit that another one makes idle.
    """
    known, at_most = latency_metrics(), {}
    for argument in arguments:
        name, _, text = argument.removeprefix(PREFIX).partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {PREFIX}{near[0]}?)" if near else ""
            raise ConfigError(f"{PREFIX}{name}: no such limit{hint}; there are {', '.join(known)}")
        value = _positive(f"{PREFIX}{name}", text)
        if at_most.setdefault(name, value) != value:
            raise ConfigError(
                f"{PREFIX}{name}={at_most[name]:g} and {PREFIX}{name}={value:g} contradict each "
                "other: give one"
            )
    limits = Limits(at_most)
    _check_idle(limits)
    return limits


def _positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        unit = BY_NAME[name.removeprefix(PREFIX)].unit
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
