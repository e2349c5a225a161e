"""What was published: the one table of figures, and whether a number of ours agrees with one."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

#: no number was made: the verdict of a set-up that could not run
NOT_RUN = "not run"


@dataclass(frozen=True)
class Figure:
    """A published number, or a range of them; an end that is "" is open.

    low, high: as printed, equal for a single number. unit: as in `%`; empty for a ratio's `x` too.
    accept: `range` (inside), `rel S` (within the share S of the nearer end) or `abs D` (within D).
    fitted: whether a constant of the harness was chosen while looking at this number.
    kind: `printed`, `transcribed` (by a third party), `computed`, `words` (the bounds are ours) or
        `said` (commonly, without a source that could be read).
    """

    experiment: str
    row: str
    low: str
    high: str
    unit: str
    accept: str
    fitted: bool
    kind: str
    source: str

    @property
    def text(self) -> str:
        """The number as it is shown."""
        unit = "" if self.unit == "x" else f" {self.unit}" if self.unit else ""
        times = "x" if self.unit == "x" else ""
        if self.low == self.high:
            return f"{self.low}{times}{unit}"
        if not self.low:
            return f"at most {self.high}{times}{unit}"
        if not self.high:
            return f"at least {self.low}{times}{unit}"
        return f"{self.low} to {self.high}{times}{unit}"

    @property
    def decimals(self) -> int:
        """Digits behind the point of what is printed."""
        return max(len(end.partition(".")[2]) for end in (self.low, self.high))

    def off(self, value: float) -> float:
        """Return how far a value is from the number or the range's nearer end, signed."""
        low = float(self.low) if self.low else -math.inf
        high = float(self.high) if self.high else math.inf
        return value - low if value < low else value - high if value > high else 0.0

    def difference(self, value: float) -> str:
        """Return the difference as it is shown: points for a percentage, else a share."""
        off = self.off(value)
        decimals = max(1, self.decimals)
        if self.unit == "%":
            return f"{off:+.{decimals}f} points" if round(off, decimals) else "0"
        end = value - off
        if not end:
            return f"{off:+.3g}" if off else "0"
        return f"{100 * off / end:+.1f} %" if round(100 * off / end, 1) else "0"

    def verdict(self, value: float) -> str:
        """Return `yes` or `no`, with `(fitted)` where agreement shows little."""
        how, _, amount = self.accept.partition(" ")
        off = self.off(value)
        allowed = 0.0
        if how == "abs":
            allowed = float(amount)
        elif how == "rel":
            allowed = float(amount) * abs(value - off)
        # A number with so many digits printed is met by what rounds to it.
        agrees = abs(off) <= allowed * (1 + 1e-9)
        return ("yes" if agrees else "no") + (" (fitted)" if self.fitted else "")


@cache
def figures() -> dict[str, dict[str, Figure]]:
    """Return the figures by experiment and row, in the order of the table."""
    text = (files("harness.published") / "figures.csv").read_text(encoding="utf-8")
    found: dict[str, dict[str, Figure]] = {}
    for row in csv.DictReader(text.splitlines(), strict=True):
        fitted = row.pop("fitted") == "yes"
        figure = Figure(fitted=fitted, **row)
        rows = found.setdefault(figure.experiment, {})
        if figure.row in rows:
            raise ValueError(f"figures.csv: {figure.experiment}: {figure.row} is there twice")
        rows[figure.row] = figure
    return found
