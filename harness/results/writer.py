"""Writes a run directory: `summary.json`, `requests.parquet`, `timeline.parquet`.

`summary.json` is small and is replaced after every variant, so that an interrupted run keeps the
variants it finished. The columns are large: they are written while a variant runs, to temporary
files that take their final names when the run ends, whether it ends well or by Ctrl-C, with the
variants that have finished.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from harness.results.atomic import write_text
from harness.results.bins import MOST_BINS, Bins
from harness.results.columns import ColumnFile
from harness.results.errors import ResultsError
from harness.results.runlog import REQUEST_COLUMNS, TIMELINE_COLUMNS, Columns, ResultRow, RunLog
from harness.results.stream import blocks_of

SCHEMA_VERSION = 1
#: of a log's totals those that a summary's row keeps, under `totals`
GAP_TOTALS = ("gap_s", "gap_cached_byte_s")
SUMMARY, REQUESTS, TIMELINE = "summary.json", "requests.parquet", "timeline.parquet"
#: full: every step of a timeline; auto: bins where it has more than one block of steps
TIMELINES = ("auto", "full")


class RunWriter:
    """Fills one run directory, variant by variant; leaving the context finishes the files.

    Nothing is written before a variant's first block or row, so a run that fails earlier leaves
    nothing behind. Every failure to write is a ResultsError of one line, after which there is no
    more to add.
    """

    def __init__(
        self,
        run_dir: str | Path,
        config: dict[str, Any],
        environment: dict[str, Any],
        timeline: str = "auto",
        most_bins: int = MOST_BINS,
    ) -> None:
        """`timeline` is one of `TIMELINES`; in bins it has at most `most_bins` rows a variant."""
        self.run_dir = Path(run_dir)
        self.rows: list[ResultRow] = []
        self._timeline, self._most_bins = timeline, most_bins
        self._totals: list[dict[str, float]] = []
        self._head = {
            "schema_version": SCHEMA_VERSION,
            "config": plain(config),
            "environment": plain(environment),
        }
        self._open = ExitStack()
        self._files: dict[str, ColumnFile] = {}
        self._failure: OSError | None = None

    def columns(self, allocator: str) -> VariantColumns:
        """A consumer of the columns of the next variant, to be ended by `end`."""
        return VariantColumns(self, allocator, self._timeline == "full", self._most_bins)

    def end(
        self,
        row: ResultRow,
        totals: Mapping[str, float] | None = None,
        columns: VariantColumns | None = None,
    ) -> None:
        """Append a variant's row to the summary, and end its columns, if it has any.

        Those of a row that is not ok are dropped.
        """
        self.rows.append(row)
        kept = totals or {}
        # What neither the columns nor the metrics tell: the memory between the steps.
        self._totals.append({name: float(kept[name]) for name in GAP_TOTALS if name in kept})
        self.attempt(lambda files: None)
        try:
            write_text(self.run_dir / SUMMARY, self._summary_text())
        except OSError as error:
            raise self._refused(self._failure or error) from error
        if columns is not None:
            columns.end(row.ok)
        if self._failure is not None:
            raise self._refused(self._failure) from self._failure

    def add(self, row: ResultRow, log: RunLog | None = None) -> None:
        """Append a variant whose whole log is there: its row, and its columns if it has any."""
        if log is None:
            self.end(row)
            return
        columns = self.columns(log.allocator)
        for block in blocks_of(log.timeline):
            columns.steps(block)
        for block in blocks_of(log.requests):
            columns.requests(block)
        self.end(row, log.totals, columns)

    def attempt(self, write: Callable[[dict[str, ColumnFile]], None]) -> None:
        """Write to the large files; one that fails is the last, and `end` says why."""
        if self._failure is not None:
            return
        try:
            if not self._files:
                self._start_columns()
            write(self._files)
        except OSError as error:
            # Without a part they would be damaged: rather none.
            self._failure = error
            with suppress(OSError):
                self._open.__exit__(type(error), error, error.__traceback__)

    def finish(self) -> None:
        """Give the column files their final names, with the variants that have ended well."""
        try:
            self._open.close()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> ResultsError:
        return ResultsError(f"{self.run_dir}: cannot write the results: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def _start_columns(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name, columns in ((TIMELINE, TIMELINE_COLUMNS), (REQUESTS, REQUEST_COLUMNS)):
            self._files[name] = ColumnFile(self.run_dir / name, columns, self._open)

    def _summary_text(self) -> str:
        rows = [
            plain({**asdict(row), "totals": totals})
            for row, totals in zip(self.rows, self._totals, strict=True)
        ]
        summary = {**self._head, "rows": rows}
        return json.dumps(summary, indent=2, allow_nan=False) + "\n"


class VariantColumns:
    """A consumer that writes a variant's columns; of the timeline it holds a block, or its bins."""

    def __init__(self, writer: RunWriter, allocator: str, full: bool, most_bins: int) -> None:
        self._writer, self._allocator, self._full = writer, allocator, full
        self._bins = Bins(most_bins)
        self._first: Columns | None = None  # it may be the only block of steps
        self._binned = False

    def steps(self, block: Columns) -> None:
        """See `stream.Consumer`."""
        if self._full:
            self._write(TIMELINE, block)
        elif self._first is None and not self._binned:
            self._first = block
        else:
            if self._first is not None:
                self._bins.add(self._first)
                self._first, self._binned = None, True
            self._bins.add(block)

    def requests(self, block: Columns) -> None:
        """See `stream.Consumer`."""
        self._write(REQUESTS, block)

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """See `stream.Consumer`; of them a request's longest is kept, among its columns."""

    def end(self, ok: bool) -> None:
        """Write the rest of it, or drop all of it."""
        if not ok:
            self._writer.attempt(self._drop)
        elif self._first is not None:
            self._write(TIMELINE, self._first)
        elif self._binned:
            self._writer.attempt(lambda files: files[TIMELINE].widen())
            self._write(TIMELINE, self._bins.columns())

    def _write(self, file: str, rows: Columns) -> None:
        self._writer.attempt(lambda files: files[file].write(self._allocator, rows))

    def _drop(self, files: dict[str, ColumnFile]) -> None:
        for file in files.values():
            file.drop(self._allocator)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: paths and infinities become text, arrays lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
