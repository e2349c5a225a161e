"""Gaps between the tokens of a request: their distribution, in bounded memory.

Nearly all gaps of a step are one number, so gaps come as values with counts, and equal values are
kept once.  Up to `MOST_VALUES` different values every statistic is that of all gaps.  Beyond that
each value is rounded to `KEPT_BITS` bits behind its first, so that a percentile is off by at most
2^-13 of itself: the guarantee of DDSketch (Masson, Rim, Lee, VLDB 2019), with buckets that are
evenly spaced within a power of two.
"""

from __future__ import annotations

import numpy as np

#: different values, of 16 bytes each, up to which all are kept as they are
MOST_VALUES = 1 << 20
#: of the 52 of a float those that are kept of more values than that
KEPT_BITS = 12
#: pairs that are gathered before they are sorted in among the others
GATHERED = 1 << 18


class TokenGaps:
    """A growing collection of seconds with counts; what it says does not depend on their order."""

    def __init__(self, most_values: int = MOST_VALUES) -> None:
        self._most = most_values
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._gathered = 0
        self._rounds = False

    def add(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """Take [n] gaps in seconds, each as often as `counts` says; the arrays may change later."""
        self._parts.append((seconds.copy(), counts.copy()))
        self._gathered += len(seconds)
        if self._gathered >= GATHERED:
            self._merge()

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the different values, ascending, in seconds, and how often there is each."""
        self._merge()
        return self._parts[0]

    def mean(self) -> float | None:
        """The mean of all gaps, seconds; None where there are none."""
        seconds, counts = self.values()
        return float((seconds * counts).sum() / counts.sum()) if len(seconds) else None

    def percentiles(self, percents: tuple[float, ...]) -> list[float | None]:
        """Percentiles of all gaps, seconds, by the linear method of `numpy.percentile`."""
        seconds, counts = self.values()
        if not len(seconds):
            return [None] * len(percents)
        last = np.cumsum(counts) - 1  # the place of each value's last gap, of all in order
        places = np.asarray(percents) / 100 * last[-1]
        below = np.floor(places).astype(np.int64)
        low, high = (
            seconds[np.searchsorted(last, np.minimum(at, last[-1]))] for at in (below, below + 1)
        )
        part = places - below
        # From the nearer end, as NumPy does, for the last bit.
        near_low, near_high = low + (high - low) * part, high - (high - low) * (1 - part)
        return np.where(part < 0.5, near_low, near_high).tolist()

    def _merge(self) -> None:
        """Sort what was gathered in among the rest, equal values once."""
        seconds = np.concatenate([np.empty(0), *(part[0] for part in self._parts)])
        counts = np.concatenate([np.empty(0, np.int64), *(part[1] for part in self._parts)])
        if self._rounds:
            seconds = _rounded(seconds)
        seconds, counts = _once(seconds, counts)
        if len(seconds) > self._most and not self._rounds:
            self._rounds = True
            seconds, counts = _once(_rounded(seconds), counts)
        self._parts, self._gathered = [(seconds, counts)], 0


def _once(seconds: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each value once, ascending, with the sum of its counts."""
    if not len(seconds):
        return seconds, counts
    order = np.argsort(seconds)
    seconds, counts = seconds[order], counts[order]
    first = np.flatnonzero(np.concatenate(([True], seconds[1:] != seconds[:-1])))
    return seconds[first], np.add.reduceat(counts, first)


def _rounded(seconds: np.ndarray) -> np.ndarray:
    """Values >= 0 to the nearest of those that a float of `KEPT_BITS` can hold."""
    dropped = 52 - KEPT_BITS
    bits = seconds.view(np.int64) + (1 << (dropped - 1))
    return (bits & -(1 << dropped)).view(np.float64)
