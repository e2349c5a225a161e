"""Which values of an option make sense: declared in tables, said in one wording.

A number out of range would not stop a simulation: it would print a plausible table, or never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Range(Protocol):
    """The values that an option may take."""

    def refusal(self, value: object) -> str | None:
        """Return what the option must be if `value` is not allowed, as in `must be at least 1`."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number, both ends allowed."""

    least: int
    most: int

    def refusal(self, value: int) -> str | None:
        if value < self.least:
            return f"must be at least {self.least}"
        return f"must be at most {self.most}" if value > self.most else None


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number, both ends allowed; nan is outside of every range."""

    least: float
    most: float

    def refusal(self, value: float) -> str | None:
        if self.least <= value <= self.most:
            return None
        return f"must be at least {self.least:g} and at most {self.most:g}"


@dataclass(frozen=True, slots=True)
class Positive:
    """A finite number above 0."""

    most: float

    def refusal(self, value: float) -> str | None:
        if 0 < value <= self.most:
            return None
        return f"must be a positive number and at most {self.most:g}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few values."""

    allowed: tuple[object, ...]

    def refusal(self, value: object) -> str | None:
        if value in self.allowed:
            return None
        return f"must be one of {', '.join(map(str, self.allowed))}"


def out_of_range(group: str, options: object, ranges: Mapping[str, Range]) -> str | None:
    """Return what is wrong with the first of `options` that is out of its range, in one line.

    `ranges` are by attribute of `options`, which the message names behind `group` and a dot (none
    where the group is empty).  An option that is None is left open, which is allowed here.
    """
    for name, allowed in ranges.items():
        value = getattr(options, name)
        refusal = None if value is None else allowed.refusal(value)
        if refusal is not None:
            return f"{f'{group}.{name}' if group else name} {refusal}, got {value!r}"
    return None
