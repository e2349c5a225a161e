"""Reads a run directory back, and refuses what it does not understand in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.results.bins import BIN_COLUMNS, BINNED_COLUMNS
from harness.results.columns import column_values
from harness.results.errors import ResultsError
from harness.results.runlog import (
    BYTES,
    LIMITED_BY,
    PART_SECONDS,
    REQUEST_COLUMNS,
    STATUSES,
    TIMELINE_COLUMNS,
    Columns,
    ResultRow,
    RunLog,
)
from harness.results.writer import REQUESTS, SCHEMA_VERSION, SUMMARY, TIMELINE

if TYPE_CHECKING:
    import pyarrow as pa

#: younger than the first files, which are of models that have none
_EXPIRED = "expired_bytes"
#: the columns that `read_logs` reads: those of memory over time, and those of latencies
_TIMELINE = ("step", "start_s", "time_s", *(name for name in BYTES if name != _EXPIRED))
#: read too where there are any: how much a row of a timeline in bins stands for
_WEIGHTS = ("steps", "busy_s")
_REQUESTS = ("arrival_s", "first_token_s", "finish_s", "output_tokens", "status")
#: of requests, younger than the first files, and missing where a request has one token
_LONGEST = "itl_max_s"


def load_summary(path: str | Path) -> dict[str, Any]:
    """The content of a `summary.json`, given it or its run directory.

    Raises ResultsError when it is absent, truncated, not a summary, or of another schema version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: no such file") from error
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ResultsError(f"{path}: not a kv-harness summary (nested too deeply)") from error
    except ValueError as error:
        raise ResultsError(f"{path}: truncated or not JSON: {error}") from error
    problem = _problem(summary)
    if problem:
        raise ResultsError(f"{path}: {problem}")
    return summary


def summary_rows(summary: dict[str, Any]) -> list[ResultRow]:
    """The rows of a loaded summary."""
    return [
        ResultRow(
            row["allocator"],
            row["status"],
            row["reason"],
            row["metrics"],
            row["output_digest"],
            row["loop"],
        )
        for row in summary["rows"]
    ]


def read_logs(
    run_dir: Path, totals: dict[str, dict[str, float]]
) -> tuple[dict[str, RunLog], list[str]]:
    """The log of each allocator, with the columns of memory over time and of latencies alone.

    `totals` are those of the summary's rows, by allocator. A file that cannot be read leaves its
    columns empty, for a report shows what there is; why is the second value, a line a file.
    """
    found: list[dict[str, Columns]] = []
    problems = []
    files = (TIMELINE, _TIMELINE, (_EXPIRED, *_WEIGHTS)), (REQUESTS, _REQUESTS, (_LONGEST,))
    for file, columns, more in files:
        try:
            found.append(_read_columns(run_dir / file, columns, more))
        except ResultsError as error:
            found.append({})
            problems.append(str(error))
    steps, requests = found
    logs = {}
    for name in {**steps, **requests}:
        timeline = steps.get(name) or {column: np.empty(0) for column in _TIMELINE}
        columns = requests.get(name) or {column: np.empty(0) for column in _REQUESTS}
        logs[name] = _log(name, timeline, columns, totals.get(name, {}))
    return logs, problems


def read_whole_logs(run_dir: Path, totals: dict[str, dict[str, float]]) -> list[RunLog]:
    """The logs of the allocators in `totals`, with all columns that the files have.

    A timeline that was too long for full resolution is in bins.  Raises ResultsError.
    """
    # Absent from files that were written before any step said what limited it.
    later = (_EXPIRED, *LIMITED_BY, *PART_SECONDS)
    names = tuple(name for name in TIMELINE_COLUMNS if name not in later)
    steps = _read_columns(run_dir / TIMELINE, names, (*later, *BIN_COLUMNS))
    names = tuple(name for name in REQUEST_COLUMNS if name != _LONGEST)
    requests = _read_columns(run_dir / REQUESTS, names, (_LONGEST,))
    for columns in requests.values():
        columns.setdefault(_LONGEST, np.full(len(columns["request"]), np.nan))
    nothing = {name: np.empty(0, kind) for name, kind in TIMELINE_COLUMNS.items()}
    return [_log(name, steps.get(name, nothing), requests[name], totals[name]) for name in totals]


def _log(name: str, timeline: Columns, requests: Columns, totals: dict[str, float]) -> RunLog:
    # The categories of any step or bin sum to the capacity.
    timeline.setdefault(_EXPIRED, np.zeros(len(timeline["step"]), dtype=np.int64))
    capacity_bytes = sum(int(timeline[column][:1].sum()) for column in BYTES)
    return RunLog(name, capacity_bytes, timeline, requests, totals)


def _read_columns(
    path: Path, names: tuple[str, ...], more: tuple[str, ...] = ()
) -> dict[str, Columns]:
    """The columns of each allocator; the writer gives every allocator row groups of its own.

    `more` are columns that a file may have or not.  Raises ResultsError where the file is absent,
    damaged, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces: dict[str, list[Columns]] = {}
    try:
        with pq.ParquetFile(path) as file:
            names += tuple(name for name in more if name in file.schema_arrow.names)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["allocator", *names])
                if table.num_rows:
                    allocator = str(table["allocator"][0].as_py())
                    values = {name: _values(table, name) for name in names}
                    pieces.setdefault(allocator, []).append(values)
        return {
            # Popped, so that no more than one column is there twice.
            allocator: {name: np.concatenate([part.pop(name) for part in parts]) for name in names}
            for allocator, parts in pieces.items()
        }
    except FileNotFoundError as error:
        raise ResultsError(f"{path.name}: no such file") from error
    except KeyError as error:
        raise ResultsError(f"{path.name}: has not the columns of this file: {error}") from error
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise ResultsError(f"{path.name}: damaged: {reason}") from error


def _values(table: pa.Table, name: str) -> np.ndarray:
    """A column as the writer wrote it; raises KeyError, ValueError or TypeError if it is not."""
    column = table[name]
    # Nobody can tell the parts of a step that really ran.
    if column.null_count and name not in (_LONGEST, *PART_SECONDS):
        raise ValueError(f"{name} has values that are missing")
    kind = {**BINNED_COLUMNS, **REQUEST_COLUMNS}[name]
    if "steps" not in table.column_names:
        kind = TIMELINE_COLUMNS.get(name, kind)
    return column_values(column).astype(kind, copy=False)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _problem(summary: Any) -> str | None:
    if not isinstance(summary, dict) or type(summary.get("schema_version")) is not int:
        return "not a kv-harness summary (it has no schema_version)"
    version = summary["schema_version"]
    if version > SCHEMA_VERSION:
        return f"schema_version {version} is newer than {SCHEMA_VERSION}: update kv-harness"
    if version < SCHEMA_VERSION:
        return f"schema_version {version} is older than {SCHEMA_VERSION}: run it again"
    for name, kind in (("config", dict), ("environment", dict), ("rows", list)):
        if not isinstance(summary.get(name), kind):
            return f"{name} is missing or not a {kind.__name__}"
    for index, row in enumerate(summary["rows"]):
        problem = _row_problem(row)
        if problem:
            return f"rows[{index}]: {problem}"
    return None


def _row_problem(row: Any) -> str | None:
    if not isinstance(row, dict) or not isinstance(row.get("allocator"), str):
        return "not a row (it names no allocator)"
    if row.get("status") not in STATUSES:
        return f"status {row.get('status')!r} is not one of {', '.join(STATUSES)}"
    if not isinstance(row.setdefault("reason", None), str | None):
        return "reason is not text"
    # Absent from files that were written before any run emitted tokens.
    if not isinstance(row.setdefault("output_digest", None), str | None):
        return "output_digest is not text"
    # Absent from files that were written before there was more than one loop.
    if not isinstance(row.setdefault("loop", None), str | None):
        return "loop is not text"
    if not isinstance(row.get("metrics"), dict):
        return "metrics is missing or not a dict"
    # Absent from files that were written before the memory between the steps was kept.
    if not isinstance(row.setdefault("totals", {}), dict):
        return "totals is not a dict"
    for name, value in row["totals"].items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"total {name} is not a number: {value!r}"
    for name, value in row["metrics"].items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return f"metric {name} is not a number: {value!r}"
    return None
