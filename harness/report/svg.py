"""Small SVG drawings that follow the page's theme: shapes carry classes, colours come from CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import count

_SERIAL = count(1)


class Drawing:
    """Collects shapes in a view box of `width` x `height`; every text is escaped here."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self._size = (width, height)
        self._title, self._description = title, description
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "rule") -> None:
        """A straight line; `kind` is its class."""
        self._parts.append(
            f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )

    def text(
        self, x: float, y: float, text: str, kind: str = "tick", anchor: str = "start"
    ) -> None:
        """A text whose base line is at `y`."""
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> None:
        """An open line through the points."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<path class="series" style="--c:{colour}"{dashed} d="{path_data(points)}"/>'
        )

    def area(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A filled outline; `kind` is the class that gives its colour."""
        self._parts.append(f'<path class="{kind}" d="{path_data(points)}Z"/>')

    def mark(self, x: float, y: float, colour: str, tip: str) -> None:
        """A dot with a text that appears on hovering over it."""
        self._parts.append(
            f'<circle class="mark" style="--c:{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.2">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def markup(self) -> str:
        """The drawing as an `<svg>` element with a title and a description for screen readers."""
        width, height = self._size
        number = next(_SERIAL)
        return (
            f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" '
            f'aria-labelledby="t{number} d{number}">'
            f'<title id="t{number}">{escape(self._title)}</title>'
            f'<desc id="d{number}">{escape(self._description)}</desc>'
            f"{''.join(self._parts)}</svg>"
        )


def path_data(points: Sequence[tuple[float, float]]) -> str:
    """`M x y L x y ...`, with one decimal and without repeating what does not change."""
    text: list[str] = []
    before: tuple[str, str] | None = None
    for x, y in points:
        here = (f"{x:.1f}", f"{y:.1f}")
        if before is None:
            text.append(f"M{here[0]} {here[1]}")
        elif here == before:
            continue
        elif here[1] == before[1]:
            text.append(f"H{here[0]}")
        elif here[0] == before[0]:
            text.append(f"V{here[1]}")
        else:
            text.append(f"L{here[0]} {here[1]}")
        before = here
    return "".join(text)


class Scale:
    """Maps values to coordinates, linearly or by logarithm, and knows round values in between."""

    def __init__(
        self, low: float, high: float, start: float, end: float, log: bool = False
    ) -> None:
        if high <= low:
            high = low + (abs(low) or 1.0)
        self.low, self.high, self.log = low, high, log
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self._start + min(max(share, -0.02), 1.02) * (self._end - self._start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the range."""
        return self._log_ticks() if self.log else linear_ticks(self.low, self.high, about)

    def _log_ticks(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            values = [s * 10.0**e for e in range(first, last + 1) for s in steps]
            inside = [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
            if len(inside) >= 3:
                break
        return inside


def linear_ticks(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, `about` so many."""
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def dash_array(style: object) -> str:
    """matplotlib's dash style as SVG writes it, for lines of two pixels."""
    if isinstance(style, tuple):
        return " ".join(f"{2 * length:g}" for length in style[1])
    return ""
