"""A long run's timeline in bins: a bounded number of rows, whatever the number of steps.

Bin k holds the steps k·w to (k+1)·w - 1, the last one those that are left.  The width w starts at
one step and doubles, pairs of bins becoming one, whenever there would be more than `MOST_BINS`, so
that nothing has to be known of the run's length before its end.
"""

from __future__ import annotations

import numpy as np

from harness.results.runlog import (
    BYTES,
    CATEGORIES,
    LIMITED_BY,
    PART_SECONDS,
    TIMELINE_COLUMNS,
    Columns,
)

#: at most so many rows; between half of that and all of it are used
MOST_BINS = 16_384
#: what happens in a step: a bin has the sum over its steps
FLOWS = ("batched_tokens", "preemptions", "hit_tokens", "copied_bytes", *PART_SECONDS)
#: what lasts for a step: a bin has the mean over its steps, weighted by the time they take
LEVELS = (
    "running", "waiting", "blocks_in_use", *BYTES, "batch", "logical_blocks", "metadata_bytes",
    "saturated", *LIMITED_BY,
)  # fmt: skip
#: of these a bin has the least and the most of any of its steps too
EXTREMES = tuple(
    name for name in (*LEVELS, *FLOWS) if name not in ("saturated", *LIMITED_BY, *PART_SECONDS)
)
#: what a bin has besides a step's columns: how many steps, and the seconds that they take
BIN_COLUMNS: dict[str, type] = {
    "steps": np.int64,
    "busy_s": np.float64,
    **{f"{name}_{end}": np.int64 for name in EXTREMES for end in ("min", "max")},
}
#: the columns of a timeline of which any part is in bins; means of bytes are whole, see `columns`
BINNED_COLUMNS: dict[str, type] = {
    **{
        name: np.float64 if name in LEVELS and name not in BYTES else kind
        for name, kind in TIMELINE_COLUMNS.items()
    },
    **BIN_COLUMNS,
}


class Bins:
    """Gathers steps into at most `most` bins."""

    def __init__(self, most: int = MOST_BINS) -> None:
        self.width, self._most = 1, most
        self._bins: Columns = {}

    def add(self, steps: Columns) -> None:
        """Take the steps that follow those taken before: [n] of each of `TIMELINE_COLUMNS`."""
        while steps["step"][-1] // self.width >= self._most:
            self.width *= 2
        bins = _merged(_as_bins(steps), self.width)
        if self._bins:
            # Those there are too narrow where the width has grown, and the last one may go on.
            joined = {name: np.concatenate([self._bins[name], bins[name]]) for name in bins}
            bins = _merged(joined, self.width)
        self._bins = bins

    def columns(self) -> Columns:
        """[bins] of each of `BINNED_COLUMNS`; means of bytes are whole and sum to the capacity."""
        return _typed({**self._bins, **_whole_bytes(self._bins)})


def single_bins(steps: Columns) -> Columns:
    """[n] of each of `BINNED_COLUMNS`: every step a bin by itself."""
    return _typed(_as_bins(steps))


def _typed(bins: Columns) -> Columns:
    return {name: bins[name].astype(kind) for name, kind in BINNED_COLUMNS.items()}


def _as_bins(steps: Columns) -> Columns:
    """Every step a bin by itself; means are floats, of bytes too."""
    return {
        **steps,
        **{name: steps[name].astype(np.float64) for name in LEVELS},
        "steps": np.ones(len(steps["step"]), dtype=np.int64),
        "busy_s": steps["time_s"] - steps["start_s"],
        **{f"{name}_{end}": steps[name] for name in EXTREMES for end in ("min", "max")},
    }


def _merged(bins: Columns, width: int) -> Columns:
    """Bins of `width` steps from narrower ones, whose widths divide it."""
    number = bins["step"] // width
    first = np.flatnonzero(np.concatenate(([True], number[1:] != number[:-1])))
    last = np.append(first[1:], len(number)) - 1
    busy_s = np.add.reduceat(bins["busy_s"], first)
    found = {
        "step": bins["step"][first],
        "start_s": bins["start_s"][first],
        "time_s": bins["time_s"][last],
        "busy_s": busy_s,
        "steps": np.add.reduceat(bins["steps"], first),
    }
    for name in FLOWS:
        found[name] = np.add.reduceat(bins[name], first)
    for name in EXTREMES:
        found[f"{name}_min"] = np.minimum.reduceat(bins[f"{name}_min"], first)
        found[f"{name}_max"] = np.maximum.reduceat(bins[f"{name}_max"], first)
    for name in LEVELS:
        integral = np.add.reduceat(bins[name] * bins["busy_s"], first)
        # Steps that take no time have no mean over it: the first of them stands for all.
        mean = np.divide(integral, busy_s, out=bins[name][first].copy(), where=busy_s > 0)
        low, high = found.get(f"{name}_min", 0.0), found.get(f"{name}_max", 1.0)
        found[name] = np.clip(mean, low, high)  # the last bit may be beyond
    return found


def _whole_bytes(bins: Columns) -> Columns:
    """Means of the memory categories, int64, each rounded down or up so that the sum is exact.

    Those with the largest remainders are rounded up, as seats are given out.
    """
    means = np.stack([bins[name] for name in BYTES])
    whole = np.floor(means).astype(np.int64)
    capacity = np.rint(means.sum(axis=0)).astype(np.int64)
    order = np.argsort(whole - means, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(CATEGORIES))[:, None], axis=0)
    whole += rank < capacity - whole.sum(axis=0)
    return dict(zip(BYTES, whole, strict=True))
