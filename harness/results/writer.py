"""Writes a run directory: `summary.json`, `requests.parquet`, `timeline.parquet`.

`summary.json` is small and is replaced after every variant, so that an interrupted run keeps the
variants it finished. The columns are large: each variant is appended once, to a temporary file that
takes its final name when the run ends, whether it ends well or by Ctrl-C.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from harness.results.atomic import replacing, write_text
from harness.results.errors import ResultsError
from harness.results.runlog import REQUEST_COLUMNS, TIMELINE_COLUMNS, ResultRow, RunLog

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 1
#: of a log's totals those that a summary's row keeps, under `totals`
GAP_TOTALS = ("gap_s", "gap_cached_byte_s")
SUMMARY, REQUESTS, TIMELINE = "summary.json", "requests.parquet", "timeline.parquet"


class RunWriter:
    """Fills one run directory, variant by variant; leaving the context finishes the files.

    Nothing is written before the first row, so a run that fails earlier leaves nothing behind.
    Every failure to write is a ResultsError of one line, after which there is no more to add.
    """

    def __init__(
        self, run_dir: str | Path, config: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        self.run_dir = Path(run_dir)
        self.rows: list[ResultRow] = []
        self._totals: list[dict[str, float]] = []
        self._head = {
            "schema_version": SCHEMA_VERSION,
            "config": plain(config),
            "environment": plain(environment),
        }
        self._open = ExitStack()
        self._columns: dict[str, Any] = {}

    def add(self, row: ResultRow, log: RunLog | None = None) -> None:
        """Append a variant: its row to the summary, its columns (if it has any) to the files."""
        tables = {}
        if log is not None:
            tables = {
                TIMELINE: column_table(log.allocator, log.timeline, TIMELINE_COLUMNS),
                REQUESTS: column_table(log.allocator, log.requests, REQUEST_COLUMNS),
            }
        self.rows.append(row)
        self._totals.append(_gap_totals(log))
        try:
            if not self._columns:
                self._start_columns()
            write_text(self.run_dir / SUMMARY, self._summary_text())
        except OSError as error:
            raise self._refused(error) from error
        try:
            for name, table in tables.items():
                self._columns[name].write_table(table)
        except OSError as error:
            self._discard(error)
            raise self._refused(error) from error

    def finish(self) -> None:
        """Give the column files their final names, with the variants added so far."""
        try:
            self._open.close()
        except OSError as error:
            raise self._refused(error) from error

    def _discard(self, error: OSError) -> None:
        """Remove the column files, which may lack a part: rather none than one that is damaged."""
        with suppress(OSError):
            self._open.__exit__(type(error), error, error.__traceback__)

    def _refused(self, error: OSError) -> ResultsError:
        return ResultsError(f"{self.run_dir}: cannot write the results: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def _start_columns(self) -> None:
        import pyarrow.parquet as pq

        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name, columns in ((TIMELINE, TIMELINE_COLUMNS), (REQUESTS, REQUEST_COLUMNS)):
            # pyarrow gets a path and not a Python file: Ctrl-C cannot then cut a row group in two.
            temporary = self._open.enter_context(replacing(self.run_dir / name))
            writer = pq.ParquetWriter(temporary, column_schema(columns), compression="zstd")
            self._open.callback(writer.close)
            self._columns[name] = writer

    def _summary_text(self) -> str:
        rows = [
            plain({**asdict(row), "totals": totals})
            for row, totals in zip(self.rows, self._totals, strict=True)
        ]
        summary = {**self._head, "rows": rows}
        return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def _gap_totals(log: RunLog | None) -> dict[str, float]:
    """What neither the columns nor the metrics tell: the memory between the steps."""
    totals = {} if log is None else log.totals
    return {name: float(totals[name]) for name in GAP_TOTALS if name in totals}


def column_schema(columns: dict[str, type]) -> pyarrow.Schema:
    """The Arrow schema of a column table, with `allocator` in front."""
    import pyarrow as pa

    def arrow_type(name: str, kind: type) -> pa.DataType:
        if kind is not np.object_:
            return pa.from_numpy_dtype(kind)
        return pa.dictionary(pa.int32(), pa.string()) if name == "status" else pa.string()

    fields = [pa.field("allocator", pa.dictionary(pa.int32(), pa.string()))]
    return pa.schema(fields + [pa.field(n, arrow_type(n, kind)) for n, kind in columns.items()])


def column_table(
    allocator: str, values: dict[str, np.ndarray], columns: dict[str, type]
) -> pyarrow.Table:
    """One variant's columns as an Arrow table; NaN becomes null."""
    import pyarrow as pa

    schema = column_schema(columns)
    rows = len(next(iter(values.values())))
    arrays = [pa.array([allocator] * rows, schema.field("allocator").type)]
    for name, kind in columns.items():
        column = values[name]
        if kind is np.object_:
            column = [None if item is None else str(item) for item in column]
        else:
            column = np.ascontiguousarray(column).astype(kind, casting="same_kind", copy=False)
        arrays.append(pa.array(column, schema.field(name).type, from_pandas=True))
    return pa.Table.from_arrays(arrays, schema=schema)


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
