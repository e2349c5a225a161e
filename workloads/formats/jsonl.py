"""JSONL traces: one JSON object, one request, a line.

mooncake   Mooncake (FAST 2025): timestamp (ms), input_length, output_length, hash_ids of
           512-token blocks. An id stands for the prompt up to and including its block, and the
           last one may stand for a block that is partly filled.
bailian    Qwen Bailian: chat_id, parent_chat_id, timestamp (s), input_length, output_length, type,
           turn, hash_ids of 16-token blocks. Turns arrive when recorded, whether or not the turn
           before has ended here.
token_ids  Real prompts: id, prompt_token_ids, output_len and, in all lines or none, timestamp (s).
           Other names are given by workload.columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workloads.formats.columns import arrival_column
from workloads.formats.rows import Rows, block_ids, whole_ids
from workloads.formats.source import parse_json, read_lines, refuse, seconds, tokens
from workloads.requests import RequestTable
from workloads.spec import ColumnSpec

MOONCAKE_BLOCK_TOKENS = 512
BAILIAN_BLOCK_TOKENS = 16


def read_mooncake(path: str | Path, first: int | None = None) -> RequestTable:
    """Requests are called by their index: the trace has no ids."""
    return _read_hashed(path, MOONCAKE_BLOCK_TOKENS, 1e-3, None, first)


def read_bailian(path: str | Path, first: int | None = None) -> RequestTable:
    """Requests are called by their chat_id."""
    return _read_hashed(path, BAILIAN_BLOCK_TOKENS, 1.0, "chat_id", first)


def _read_hashed(
    path: str | Path, block_tokens: int, unit_s: float, id_key: str | None, first: int | None
) -> RequestTable:
    rows = Rows(path, first)
    for line, record in _records(path):
        time_s = seconds(path, line, "timestamp", _get(path, line, record, "timestamp"), unit_s)
        prompt = _count(path, line, record, "input_length")
        output = _count(path, line, record, "output_length")
        ids = block_ids(rows, line, _get(path, line, record, "hash_ids"), prompt, block_tokens)
        name = None if id_key is None else str(_get(path, line, record, id_key))
        if rows.add(prompt, output):
            rows.time_s.append(time_s)
            rows.hash_ids.append(ids)
            if name is not None:
                rows.ids.append(name)
            if rows.enough():
                break
    return rows.table(block_tokens)


def read_token_ids(
    path: str | Path, first: int | None = None, columns: ColumnSpec | None = None
) -> RequestTable:
    """Prompts as their users made them, so an empty one is an error and not skipped."""
    columns = columns or ColumnSpec()
    rows = Rows(path, first)
    prompt_key, output_key = columns.prompt or "prompt_token_ids", columns.output or "output_len"
    time_key, unit_s = "timestamp", 1.0
    time_named = columns.arrival is not None or columns.arrival_unit is not None
    seen: dict[str, int] = {}
    for line, record in _records(path):
        if not seen and (time_named or time_key not in record):
            time_key, unit_s = arrival_column(path, line, list(record), columns) or (time_key, 1.0)
        name = str(_get(path, line, record, "id"))
        if name in seen:
            refuse(path, line, f"id {name!r} is already that of line {seen[name]}")
        seen[name] = line
        ids = whole_ids(path, line, prompt_key, _get(path, line, record, prompt_key))
        if not len(ids):
            refuse(path, line, f"{prompt_key} is empty; expected at least 1 token")
        rows.add(len(ids), _count(path, line, record, output_key))
        if len(seen) > 1 and (time_key in record) != bool(rows.time_s):
            refuse(path, line, f"{time_key} must be in every line or in none")
        if time_key == columns.arrival or time_key in record:
            value = _get(path, line, record, time_key)
            rows.time_s.append(seconds(path, line, time_key, value, unit_s))
        rows.ids.append(name)
        rows.token_ids.append(ids)
        if not rows.time_s and rows.enough():
            break
    return rows.table()


def _records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in read_lines(path):
        record = parse_json(path, line, text)
        if not isinstance(record, dict):
            refuse(path, line, "expected a JSON object, one request a line")
        yield line, record


def _get(path: str | Path, line: int, record: dict[str, Any], key: str) -> Any:
    if key not in record:
        refuse(path, line, f"no {key!r}; the keys are {', '.join(record) or 'none'}")
    return record[key]


def _count(path: str | Path, line: int, record: dict[str, Any], key: str) -> int:
    return tokens(path, line, key, _get(path, line, record, key))
