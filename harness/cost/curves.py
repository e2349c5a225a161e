"""Measured times, and what lies between them: piecewise linear, never falling, never negative.

Between two points a line; behind the last one the line through the last two; before the first
one its value, which is the least that such an operation takes.  Timing noise can make a larger
piece of work look faster than a smaller one: a point counts at least as much as those before it.

Everything is elementwise on arrays, so that n points at once get the bits of n single points.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
#: (outer amount, inner amounts [n]) -> seconds [n]
SecondsOf = Callable[[float, FloatArray], FloatArray]


class Curve:
    """Seconds by one amount."""

    def __init__(self, amounts: Sequence[float], seconds: Sequence[float]) -> None:
        """Take points with increasing amounts.  Raises `ValueError` for any that make no sense."""
        x, y = np.array(amounts, dtype=np.float64), np.array(seconds, dtype=np.float64)
        if x.ndim != 1 or not len(x) or x.shape != y.shape:
            raise ValueError(f"{x.size} amounts and {y.size} times; expected as many, at least one")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("an amount or a time is not a finite number")
        if (x < 0).any() or (np.diff(x) <= 0).any():
            raise ValueError("amounts must be increasing and not negative")
        if (y < 0).any():
            raise ValueError("a time is negative")
        y = np.maximum.accumulate(y)
        slope = np.diff(y) / np.diff(x)
        self._x, self._y = x, y
        self._slope = slope if len(slope) else np.zeros(1)

    def __call__(self, amounts: npt.ArrayLike) -> FloatArray:
        """Return the seconds of each amount; of the same shape."""
        x = np.maximum(np.asarray(amounts, dtype=np.float64), self._x[0])
        at = np.searchsorted(self._x, x, side="right") - 1
        # The last piece goes on for ever; a point that was measured gives its own bits.
        piece = np.minimum(at, len(self._slope) - 1)
        exact = self._y[at] + self._slope[piece] * (x - self._x[at])
        return np.asarray(exact, dtype=np.float64)

    def one(self, amount: float) -> float:
        """Return the seconds of one amount."""
        return float(self(np.array([amount]))[0])


class Surface:
    """Seconds by two amounts: a curve of the inner amount for each measured outer one.

    The curves need not have been measured at the same inner amounts, so that points which do not
    fit into memory can be left out.
    """

    def __init__(self, outer: Sequence[float], curves: Sequence[Curve]) -> None:
        """Take one curve for each of the increasing `outer`.  Raises `ValueError`."""
        self._outer = Curve(outer, [0.0] * len(outer))._x
        if len(curves) != len(self._outer):
            raise ValueError(f"{len(self._outer)} amounts and {len(curves)} curves")
        self._curves = list(curves)

    def __call__(self, outer: float, inner: FloatArray) -> FloatArray:
        """Return the seconds at one outer amount, for each inner amount [n]; shape [n]."""
        x = self._outer
        wanted = max(float(outer), float(x[0]))
        values = np.maximum.accumulate(np.stack([curve(inner) for curve in self._curves]))
        if len(x) == 1:
            return values[0]
        at = int(np.searchsorted(x, wanted, side="right")) - 1
        low = min(at, len(x) - 2)
        step = (values[low + 1] - values[low]) * ((wanted - x[at]) / (x[low + 1] - x[low]))
        return np.asarray(values[at] + step, dtype=np.float64)


class PagedSurfaces:
    """Seconds by two amounts, for pages of any number of tokens.

    A token costs what it costs without pages, and its share of a page: between two measured sizes
    seconds lie on a line by 1 / tokens.  Smaller pages than any measured cost as much as the
    smallest, larger ones as the largest.
    """

    def __init__(self, surfaces: Mapping[int, Surface]) -> None:
        """Take a surface for each measured size.  Raises `ValueError` for none, or one below 1."""
        self.sizes = sorted(surfaces)
        if not self.sizes or self.sizes[0] < 1:
            raise ValueError(f"pages of {self.sizes} tokens; expected one size at least, from 1 on")
        self._surfaces = dict(surfaces)
        self.of = cache(self._of)

    def _of(self, page_tokens: int) -> SecondsOf:
        """Return the seconds with pages of so many tokens."""
        sizes, surfaces = self.sizes, self._surfaces
        wanted = min(max(page_tokens, sizes[0]), sizes[-1])
        at = bisect_right(sizes, wanted) - 1
        if wanted == sizes[at]:
            return surfaces[wanted]
        low, high = sizes[at], sizes[at + 1]
        share = (1 / wanted - 1 / high) / (1 / low - 1 / high)
        smaller, larger = surfaces[low], surfaces[high]
        return lambda outer, inner: (
            share * smaller(outer, inner) + (1 - share) * larger(outer, inner)
        )
