"""What a sweep as a whole looks for: the most of one metric, with limits on others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError
from harness.results.metrics import BY_NAME
from harness.results.runlog import ResultRow

#: of a job without a row that ran: below what any limit that is missed can make of a row
NOTHING = -1e9


@dataclass
class SweepSpec:
    """Options of a sweep as a whole; none of them changes a job.

    resume: run only the jobs of `hydra.sweep.dir` that are missing or failed.
    maximize: the metric of which the best row has the most.
    at_most: {METRIC: VALUE, ...}, the largest value that the best row may have of each.
    """

    resume: bool = False
    maximize: str | None = None
    at_most: Any = None


def check_goal(spec: SweepSpec) -> None:
    """Raise `ConfigError` for a metric that there is not, or that is better the other way round."""
    if not isinstance(spec.at_most, dict | None):
        raise ConfigError(f"sweep.at_most must be {{METRIC: VALUE, ...}}, got {spec.at_most!r}")
    if spec.at_most and spec.maximize is None:
        raise ConfigError("sweep.at_most limits what sweep.maximize=METRIC looks for: give both")
    named = [("sweep.maximize", spec.maximize, "higher")] if spec.maximize is not None else []
    named += [("sweep.at_most", name, "lower") for name in spec.at_most or ()]
    for option, name, better in named:
        if name not in BY_NAME or BY_NAME[name].direction != better:
            known = [m.name for m in BY_NAME.values() if m.direction == better]
            raise ConfigError(f"{option}: {name!r} is none of {', '.join(known)}")
    for name, limit in (spec.at_most or {}).items():
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if not number or not 0 < limit < math.inf:
            raise ConfigError(f"sweep.at_most.{name} must be a positive number, got {limit!r}")


def score(row: ResultRow, spec: SweepSpec) -> float:
    """Return how good a row is, more is better: the metric, or below 0 where a limit is missed.

    Of rows that miss a limit the one that misses it least is best, and all are worse than any that
    keeps them: Deb's rule (An efficient constraint handling method for genetic algorithms, 2000,
    section 3), which a search can climb from either side.
    """
    value = row.metrics.get(spec.maximize or "")
    if not row.ok or value is None:
        return NOTHING
    missed = 0.0
    for name, limit in (spec.at_most or {}).items():
        measured = row.metrics.get(name)
        if measured is None:
            return NOTHING
        missed += max(0.0, measured / limit - 1.0)
    return -missed if missed else float(value)


def best_score(rows: Iterable[ResultRow], spec: SweepSpec) -> float:
    """Return the score of the best of a job's rows."""
    return max((score(row, spec) for row in rows), default=NOTHING)


def keeps_limits(row: ResultRow, spec: SweepSpec) -> bool:
    """Whether a row ran and is within every limit."""
    return score(row, spec) >= 0.0
