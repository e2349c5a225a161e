"""What comes out of a run while it goes on: blocks of steps, and of requests that have ended.

An engine hands its accounts to a `Sink` and forgets them.  `Intake` is the sink of every run: it
gathers blocks of one size, puts requests in the order of their index, and passes both on to
consumers: the metrics' sums, the files, or columns that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from harness.results.runlog import REQUEST_COLUMNS, TIMELINE_COLUMNS, Columns, RunLog
from harness.results.token_gaps import TokenGaps

#: rows of a block that consumers are given, and of a row group
BLOCK_ROWS = 100_000
#: what an engine says of a request that has ended; its name and status are added by `Intake`
ENDED_COLUMNS: dict[str, type] = {
    name: kind for name, kind in REQUEST_COLUMNS.items() if kind is not np.object_
}


class Sink(Protocol):
    """Takes what an engine gives up, in blocks of any size.

    The arrays of a block may be views that the engine writes again after the call.
    """

    def steps(self, block: Columns) -> None:
        """Take the steps that follow those taken before: [n] of each of `TIMELINE_COLUMNS`."""

    def ended(self, block: Columns) -> None:
        """Take requests that have ended, in any order: [n] of each of `ENDED_COLUMNS`."""

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """Take [n] gaps between two tokens of a request, each as often as `counts` says."""


class Consumer(Protocol):
    """Is given a log in order, in blocks of `BLOCK_ROWS` rows, the last ones shorter.

    The arrays are never written again.
    """

    def steps(self, block: Columns) -> None:
        """Take the steps that follow those taken before: [n] of each of `TIMELINE_COLUMNS`."""

    def requests(self, block: Columns) -> None:
        """Take the requests that follow by index: [n] of each of `REQUEST_COLUMNS`."""

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """Take what `Sink` was given, as it comes, in arrays that may be written again."""


class Intake:
    """A sink that hands a log on to consumers.

    It holds a block of each kind, and those that have ended while one before them by index has not.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        name_of: Callable[[int], str],
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        """`name_of` gives a request's name from its index."""
        self._consumers, self._name_of = consumers, name_of
        self._steps = _Gathered(TIMELINE_COLUMNS, block_rows)
        self._requests = _Gathered(ENDED_COLUMNS, block_rows)
        self._early = _InOrder()

    def steps(self, block: Columns) -> None:
        """See `Sink`."""
        self._give_steps(self._steps.add(block))

    def ended(self, block: Columns) -> None:
        """See `Sink`."""
        self._give_requests(self._requests.add(self._early.add(block)))

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """See `Sink`."""
        for consumer in self._consumers:
            consumer.token_gaps(seconds, counts)

    def finish(self) -> None:
        """Hand on what is left, when the run has ended."""
        self._give_steps(self._steps.rest())
        self._give_requests(self._requests.add(self._early.rest()))
        self._give_requests(self._requests.rest())

    def _give_steps(self, blocks: Iterable[Columns]) -> None:
        for block in blocks:
            for consumer in self._consumers:
                consumer.steps(block)

    def _give_requests(self, blocks: Iterable[Columns]) -> None:
        for block in blocks:
            names = [self._name_of(index) for index in block["request"].tolist()]
            block["id"] = np.array(names, dtype=object)
            block["status"] = np.full(len(names), "finished", dtype=object)
            for consumer in self._consumers:
                consumer.requests(block)


class Kept:
    """A consumer that keeps all columns, for those who ask for a whole log."""

    def __init__(self) -> None:
        self._steps: list[Columns] = []
        self._requests: list[Columns] = []
        self._token_gaps = TokenGaps()

    def steps(self, block: Columns) -> None:
        """See `Consumer`."""
        self._steps.append(block)

    def requests(self, block: Columns) -> None:
        """See `Consumer`."""
        self._requests.append(block)

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """See `Consumer`."""
        self._token_gaps.add(seconds, counts)

    def log(self, allocator: str, capacity_bytes: int, totals: dict[str, float]) -> RunLog:
        """The log of the run, which has ended."""
        timeline = _joined(self._steps, TIMELINE_COLUMNS)
        requests = _joined(self._requests, REQUEST_COLUMNS)
        return RunLog(allocator, capacity_bytes, timeline, requests, totals, self._token_gaps)


def kept_log(
    serve: Callable[[Sink], dict[str, float]],
    allocator: str,
    capacity_bytes: int,
    name_of: Callable[[int], str],
) -> RunLog:
    """Return the whole log of what `serve` gives a sink, and returns the totals of."""
    kept = Kept()
    intake = Intake([kept], name_of)
    totals = serve(intake)
    intake.finish()
    return kept.log(allocator, capacity_bytes, totals)


def blocks_of(columns: Columns, rows: int = BLOCK_ROWS) -> list[Columns]:
    """Whole columns as blocks of `rows` rows, of which the last may be shorter; views."""
    total = max(map(len, columns.values()), default=0)
    return [
        {name: column[at : at + rows] for name, column in columns.items()}
        for at in range(0, total, rows)
    ]


class _Gathered:
    """Copies rows into blocks of `rows` rows."""

    def __init__(self, kinds: dict[str, type], rows: int) -> None:
        self._kinds, self._rows = kinds, rows
        self._empty()

    def add(self, block: Columns) -> list[Columns]:
        """Take rows; return the blocks that are now full."""
        full: list[Columns] = []
        n, at = len(next(iter(block.values()))), 0
        while at < n:
            stop = min(n, at + self._rows - self._size)
            for name, column in self._columns.items():
                column[self._size : self._size + stop - at] = block[name][at:stop]
            self._size, at = self._size + stop - at, stop
            if self._size == self._rows:
                full += self.rest()
        return full

    def rest(self) -> list[Columns]:
        """Give up what there is, if anything, as a block."""
        size, columns = self._size, self._columns
        if not size:
            return []
        self._empty()
        return [{name: column[:size] for name, column in columns.items()}]

    def _empty(self) -> None:
        # Memory that nothing is written to is not taken, so that a short run takes little.
        self._columns = {name: np.empty(self._rows, kind) for name, kind in self._kinds.items()}
        self._size = 0


class _InOrder:
    """Holds requests back until all with a lower index have ended, and gives them up by index."""

    def __init__(self) -> None:
        self._first = 0  # the index that stands at place 0
        self._there = np.zeros(0, dtype=bool)
        self._columns: Columns = {name: np.empty(0, kind) for name, kind in ENDED_COLUMNS.items()}

    def add(self, block: Columns) -> Columns:
        """Take requests that have ended; return those, maybe none, that nobody holds back now."""
        places = block["request"] - self._first
        self._reserve(int(places.max()) + 1)
        for name, column in self._columns.items():
            column[places] = block[name]
        self._there[places] = True
        absent = np.flatnonzero(~self._there)
        ready = int(absent[0]) if len(absent) else len(self._there)
        given = {name: column[:ready] for name, column in self._columns.items()}
        self._columns = {name: column[ready:] for name, column in self._columns.items()}
        self._there = self._there[ready:]
        self._first += ready
        return given

    def rest(self) -> Columns:
        """All that are held back."""
        return {name: column[self._there] for name, column in self._columns.items()}

    def _reserve(self, places: int) -> None:
        have = len(self._there)
        if places <= have:
            return
        more = max(places, 2 * have) - have
        self._there = np.concatenate([self._there, np.zeros(more, dtype=bool)])
        self._columns = {
            name: np.concatenate([column, np.empty(more, column.dtype)])
            for name, column in self._columns.items()
        }


def _joined(blocks: Sequence[Columns], kinds: dict[str, type]) -> Columns:
    return {
        name: np.concatenate([np.empty(0, kind), *(block[name] for block in blocks)])
        for name, kind in kinds.items()
    }
