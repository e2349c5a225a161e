"""Public trace formats, found by their header or first line, or named by `workload.format`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from workloads.errors import WorkloadError, one_of
from workloads.formats import csv_tables, jsonl
from workloads.formats.agentic import read_kv_cache_tester
from workloads.formats.columns import LENGTH_COLUMNS
from workloads.formats.sharegpt import read_sharegpt
from workloads.formats.source import parse_json, read_lines, refuse
from workloads.requests import RequestTable
from workloads.spec import ColumnSpec

FORMATS: dict[str, Callable[[str | Path, int | None], RequestTable]] = {
    "azure": csv_tables.read_azure,
    "burstgpt": csv_tables.read_burstgpt,
    "lengths": csv_tables.read_lengths,
    "mooncake": jsonl.read_mooncake,
    "bailian": jsonl.read_bailian,
    "token_ids": jsonl.read_token_ids,
    "kv_cache_tester": read_kv_cache_tester,
    "sharegpt": read_sharegpt,
}

_OWN_LISTS = {"lengths": csv_tables.read_lengths, "token_ids": jsonl.read_token_ids}

# The first set that the first line holds decides; a superset stands before its subset.
_CSV_COLUMNS = (
    ("azure", csv_tables.AZURE),
    ("burstgpt", csv_tables.BURSTGPT),
    *(("lengths", pair) for pair in LENGTH_COLUMNS),
)
_JSON_KEYS = (
    ("token_ids", {"prompt_token_ids"}),
    ("kv_cache_tester", {"requests"}),
    ("bailian", {"chat_id", "input_length"}),
    ("mooncake", {"timestamp", "input_length"}),
)


def read(
    path: str | Path,
    format: str = "auto",
    first: int | None = None,
    conversations: bool = False,
    columns: ColumnSpec | None = None,
) -> RequestTable:
    """Read a trace: a file, gzipped or not, or a folder of kv-cache-tester documents.

    `first`: only so many requests, the earliest; all where there are fewer. Where
    the format has a request a line, in time order, no more is read than they take.
    `conversations`: requests come `after` each other as they did in the recording, where the
    format tells; else each comes at its recorded time.
    `columns`: names in a CSV of lengths or a JSONL of token ids; the format follows from them.

    Raises WorkloadError "FILE:LINE: what is wrong, what is expected" for the first malformed line,
    and one line for a file that is missing, empty, not text, or of no known format.
    """
    path = Path(path).expanduser()
    one_of("workload.format", format, ["auto", *FORMATS])
    if path.is_dir() and format not in ("auto", "kv_cache_tester"):
        raise WorkloadError(f"{path}: is a folder; workload.format={format} reads a file")
    if columns is not None and columns.given:
        table = _read_named(path, format, first, columns)
    else:
        table = FORMATS[detect(path) if format == "auto" else format](path, first)
    if not conversations and table.after is not None:
        table = replace(table, after=None, think_s=None)
    return table if first is None or first >= len(table) else table.take(np.arange(first))


def _read_named(path: Path, format: str, first: int | None, columns: ColumnSpec) -> RequestTable:
    """Read a user's own list of requests, in which `columns` names some columns or keys."""
    if format == "auto" and path.is_dir():
        format = "kv_cache_tester"
    elif format == "auto":
        _, text = next(read_lines(path))
        format = {"{": "token_ids", "[": "sharegpt"}.get(text.lstrip()[:1], "lengths")
    if format not in _OWN_LISTS:
        raise WorkloadError(
            "workload.columns names columns of a CSV of lengths or keys of a JSONL of token ids; "
            f"{path} is read as {format}"
        )
    return _OWN_LISTS[format](path, first, columns)


def detect(path: Path) -> str:
    """The name in FORMATS of the file at `path`. Raises WorkloadError if none fits."""
    if path.is_dir():
        return "kv_cache_tester"
    line, text = next(read_lines(path))
    start = text.lstrip()
    if start.startswith("["):
        return "sharegpt"
    if start.startswith("{"):
        if start.strip() == "{":  # an indented document: the only format that is one object
            return "kv_cache_tester"
        keys = set(parse_json(path, line, text))
        found = [name for name, wanted in _JSON_KEYS if wanted <= keys]
    else:
        try:
            header = set(csv_tables.header_of(path, line, text))
        except WorkloadError:
            header = set()
        found = [name for name, columns in _CSV_COLUMNS if set(columns) <= header]
    if not found:
        refuse(
            path,
            line,
            f"no known format begins like this: {start[:60]!r}; formats are {', '.join(FORMATS)}, "
            "see workload.format; of a CSV of lengths, workload.columns={prompt: A, output: B}",
        )
    return found[0]
