"""Reads a run directory back, and refuses what it does not understand in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.results.errors import ResultsError
from harness.results.runlog import STATUSES, Row
from harness.results.writer import SCHEMA_VERSION, SUMMARY


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


def summary_rows(summary: dict[str, Any]) -> list[Row]:
    """The rows of a loaded summary."""
    return [
        Row(row["allocator"], row["status"], row["reason"], row["metrics"], row["output_digest"])
        for row in summary["rows"]
    ]


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
    if not isinstance(row.get("metrics"), dict):
        return "metrics is missing or not a dict"
    for name, value in row["metrics"].items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return f"metric {name} is not a number: {value!r}"
    return None
