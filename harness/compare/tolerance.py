"""How much worse a metric may get: `--tolerance NAME=5%` (relative) or `NAME=3` (absolute)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.compare.load import CompareError
from harness.results.metrics import BY_NAME

#: Floats that differ by less are equal: libraries may round the last bits of a sum differently.
EQUAL = 1e-9
#: Two sessions on one machine differ by so much for reasons that are in no allocator.
MEASURED = 0.25


@dataclass(frozen=True)
class Tolerance:
    """The worsening that passes: the larger of a relative and an absolute one."""

    relative: float = 0.0
    absolute: float = 0.0

    def allows(self, baseline: float, worsening: float) -> bool:
        """Whether getting worse by `worsening` (in the metric's unit) still passes."""
        allowed = max(self.relative * abs(baseline), self.absolute)
        # 0.5 - 0.49 is a little more than 0.01.
        return worsening <= allowed + EQUAL * abs(baseline)


class Tolerances:
    """A tolerance for each metric; the last that matches its name counts."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._given = [_parse(text) for text in texts]

    def of(self, metric: str) -> Tolerance:
        """The tolerance of a metric: none for exact ones unless it was given."""
        for pattern, tolerance in reversed(self._given):
            if fnmatchcase(metric, pattern):
                return tolerance
        known = BY_NAME.get(metric)
        return Tolerance(0.0 if known is None or known.deterministic else MEASURED)


def _parse(text: str) -> tuple[str, Tolerance]:
    pattern, equals, amount = text.partition("=")
    pattern, amount = pattern.strip(), amount.strip()
    if not equals or not pattern or not amount:
        raise CompareError(f"--tolerance {text}: write METRIC=5% or METRIC=NUMBER")
    if not any(fnmatchcase(name, pattern) for name in BY_NAME):
        near = difflib.get_close_matches(pattern, list(BY_NAME), n=3, cutoff=0.5)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise CompareError(f"--tolerance {text}: no metric is named {pattern}{hint}")
    try:
        value = float(amount.removesuffix("%"))
    except ValueError as error:
        raise CompareError(f"--tolerance {text}: {amount} is not a number") from error
    if not (0 <= value < math.inf):
        raise CompareError(f"--tolerance {text}: must be a number of at least 0")
    if amount.endswith("%"):
        return pattern, Tolerance(relative=value / 100)
    return pattern, Tolerance(absolute=value)
