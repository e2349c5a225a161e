"""Accounting: the timeline, every byte in one category, requests, and gaps between their tokens.

All are gathered in small blocks, which go to the run's sink.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from allocators.base import IntArray, Usage
from harness.engine.group import Group
from harness.results.runlog import PART_SECONDS, TIMELINE_COLUMNS
from harness.results.stream import ENDED_COLUMNS, Sink

#: rows of a block: steps, and requests, and gaps between tokens
STEP_ROWS, ENDED_ROWS, GAP_ROWS = 8192, 1024, 65536


class Meter:
    """Accounts for one step or for many at once; `len` is how many there were."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._given = self._size = 0  # steps that the sink has, and that wait for it
        self.hit_tokens = 0  # of all steps
        self._columns = {
            name: np.zeros(STEP_ROWS, dtype=kind) for name, kind in TIMELINE_COLUMNS.items()
        }

    def __len__(self) -> int:
        return self._given + self._size

    def record(
        self,
        start_s: float,
        ends_s: np.ndarray,
        usage: Usage,
        saturated: bool,
        waiting: IntArray | int,
        first: dict[str, int],
        every: dict[str, int],
        last: dict[str, int],
        parts: Iterable[float | np.ndarray],
    ) -> None:
        """Append len(ends_s) steps that follow each other without a gap from `start_s` on.

        `every` holds for each of them; `first` counts happen in the first, and `last` overrides
        what differs at the end of the last.  `parts` are the seconds of `PARTS`, of each or [n].
        """
        n = len(ends_s)
        self._reserve(n)
        at = slice(self._size, self._size + n)
        places = at if n > 1 else self._size  # a number is written in half the time by its place
        put = self._columns
        put["step"][places] = np.arange(len(self), len(self) + n) if n > 1 else len(self)
        put["start_s"][self._size] = start_s
        if n > 1:
            put["start_s"][self._size + 1 : self._size + n] = ends_s[:-1]
        put["time_s"][at] = ends_s
        put["saturated"][places] = saturated
        put["waiting"][at] = waiting
        put["blocks_in_use"][at] = usage.pages
        put["logical_blocks"][at] = usage.logical_pages
        put["metadata_bytes"][at] = usage.metadata_bytes
        for name, category in category_bytes(usage, saturated).items():
            put[f"{name}_bytes"][at] = category
        for name, value in every.items():
            put[name][places] = value
        for name, seconds in zip(PART_SECONDS, parts, strict=True):
            put[name][places] = seconds
        for name, value in first.items():
            put[name][self._size] = value
        for name, value in last.items():
            put[name][self._size + n - 1] = value
        self._size += n
        self.hit_tokens += every["hit_tokens"] * n

    def finish(self) -> None:
        """Give the sink what waits for it."""
        if not self._size:
            return
        self._sink.steps({name: column[: self._size] for name, column in self._columns.items()})
        self._given, self._size = len(self), 0
        for column in self._columns.values():
            column[:] = 0

    def _reserve(self, n: int) -> None:
        assert n <= STEP_ROWS, "more steps at once than a block has rows"
        if self._size + n > STEP_ROWS:
            self.finish()


class RequestMeter:
    """Accounts for requests that have ended; nothing is kept of those that the sink has."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rows: list[tuple[float, ...]] = []

    def record(self, groups: Iterable[Group]) -> None:
        """Append requests whose times are all known."""
        for group in groups:
            self._rows.append(
                (
                    group.index,
                    group.arrival_s,
                    group.first_scheduled_s,
                    group.first_token_s,
                    group.finish_s,
                    group.prompt_tokens,
                    group.output_tokens,
                    group.sequences,
                    group.preemptions,
                    group.itl_max_s,
                )
            )
        if len(self._rows) >= ENDED_ROWS:
            self.finish()

    def finish(self) -> None:
        """Give the sink what waits for it."""
        if self._rows:
            columns = zip(ENDED_COLUMNS.items(), zip(*self._rows, strict=True), strict=True)
            self._sink.ended({name: np.array(of, dtype=kind) for (name, kind), of in columns})
            self._rows = []


class TokenGapMeter:
    """Accounts for the gaps between two tokens of a request, once for all of its sequences."""

    def __init__(self, sink: Sink, sequences: int) -> None:
        self._sink, self._sequences = sink, sequences
        self._first: list[np.ndarray] = []
        self._windows: list[np.ndarray] = []
        self._widths: list[int] = []  # of these windows, how many sequences each has
        self._size = 0

    def record(self, gaps_s: np.ndarray, ends_s: np.ndarray) -> None:
        """Append what the sequences that sampled in the steps ending at `ends_s` had waited.

        gaps_s: [sequences] since the token before that of the first of these steps, NaN for a first
        token; from then on each gap is a step.  Neither array may change later.
        """
        self._first.append(gaps_s)
        if len(ends_s) > 1:
            self._windows.append(ends_s)
            self._widths.append(len(gaps_s))
        self._size += len(gaps_s) + len(ends_s)
        if self._size >= GAP_ROWS:
            self.finish()

    def finish(self) -> None:
        """Give the sink what waits for it."""
        gaps_s = np.concatenate([np.empty(0), *self._first])
        gaps_s = gaps_s[~np.isnan(gaps_s)]
        # Those of a step are equal but for whoever was kept from sampling.
        starts = np.flatnonzero(np.concatenate(([True], gaps_s[1:] != gaps_s[:-1])))
        starts = starts[: len(gaps_s)]
        ends_s = np.concatenate([np.empty(0), *self._windows])
        lengths = np.array([len(window) for window in self._windows], dtype=np.int64)
        within = np.ones(len(ends_s), dtype=bool)
        within[np.cumsum(lengths) - lengths] = False  # a window's first step is among the others
        seconds = [gaps_s[starts], np.diff(ends_s, prepend=0.0)[within]]
        counts = [np.diff(np.append(starts, len(gaps_s))), np.repeat(self._widths, lengths)[within]]
        counts = np.concatenate(counts).astype(np.int64) // self._sequences
        self._sink.token_gaps(np.concatenate(seconds), counts)
        self._first, self._windows, self._widths, self._size = [], [], [], 0


def category_bytes(usage: Usage, saturated: bool) -> dict[str, IntArray]:
    """Bytes of each category, [steps]; free memory is external while a request waits for it."""
    return {
        "token": usage.token,
        "reserved": usage.reserved,
        "internal": usage.internal,
        "expired": usage.expired,
        "external": usage.round_up + usage.free if saturated else usage.round_up,
        "cached": usage.cached,
        "idle": np.zeros_like(usage.free) if saturated else usage.free,
    }
