"""CSV traces: one request a line under a header.

azure     Azure LLM inference traces 2023 and 2024: TIMESTAMP,ContextTokens,GeneratedTokens.
burstgpt  BurstGPT: Timestamp (s),Model,Request tokens,Response tokens,Total tokens,Log Type. A
          failed request has 0 response tokens; it is skipped and counted.
lengths   Lengths, with or without a time: num_prefill_tokens,num_decode_tokens (Sarathi-Serve,
          Vidur, vAttention), or prompt_length,output_length (AIBrix), or prompt_tokens,
          output_tokens; time as arrived_at (s), or under a name that ends in its unit. Other names
          are given by workload.columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from workloads.formats.columns import arrival_column, length_columns, unread
from workloads.formats.rows import Rows
from workloads.formats.source import read_lines, refuse, seconds, tokens
from workloads.requests import RequestTable
from workloads.spec import ColumnSpec

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?\Z")


def header_of(path: str | Path, line: int, text: str) -> list[str]:
    """The column names in a header line."""
    try:
        return [name.strip() for name in next(csv.reader([text]), [])]
    except csv.Error as error:
        refuse(path, line, f"not a CSV line: {error}")


def read_azure(path: str | Path, first: int | None = None) -> RequestTable:
    """Times keep their seven decimals: whole seconds and fraction are parsed apart."""
    rows = Rows(path, first)
    clock = _Clock(path)
    for line, (stamp, prompt, output) in _records(path, AZURE):
        request = tokens(path, line, AZURE[1], prompt), tokens(path, line, AZURE[2], output)
        time_s = clock.since_first(line, stamp)
        if rows.add(*request):
            rows.time_s.append(time_s)
            if rows.enough():
                break
    return rows.table()


def read_burstgpt(path: str | Path, first: int | None = None) -> RequestTable:
    """Times are seconds from the start of the recording; failed requests are left out."""
    rows = Rows(path, first)
    for line, (stamp, prompt, output) in _records(path, BURSTGPT):
        time_s = seconds(path, line, BURSTGPT[0], stamp)
        request = tokens(path, line, BURSTGPT[1], prompt), tokens(path, line, BURSTGPT[2], output)
        if request[1] == 0:
            rows.counts["failed requests skipped, with 0 response tokens"] += 1
        elif rows.add(*request):
            rows.time_s.append(time_s)
            if rows.enough():
                break
    return rows.table()


def read_lengths(
    path: str | Path, first: int | None = None, columns: ColumnSpec | None = None
) -> RequestTable:
    """Lengths of prompt and output; a table without times unless a time column is there."""
    columns = columns or ColumnSpec()
    line, text = next(read_lines(path))
    header = header_of(path, line, text)
    names = length_columns(header, columns)
    arrival = arrival_column(path, line, header, columns)
    wanted = (*names, *(arrival[:1] if arrival else ()))
    rows = Rows(path, first)
    others = unread(header, wanted)
    if others:
        rows.notes.append(f"{path}: columns that are not read: {', '.join(others)}")
    for line, (prompt, output, *stamp) in _records(path, wanted):
        request = tokens(path, line, names[0], prompt), tokens(path, line, names[1], output)
        time_s = [seconds(path, line, arrival[0], s, arrival[1]) for s in stamp if arrival]
        if rows.add(*request):
            rows.time_s.extend(time_s)
            if arrival is None and rows.enough():
                break
    return rows.table()


def _records(path: str | Path, wanted: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, the `wanted` fields) of each line below the header."""
    lines = read_lines(path)
    first, text = next(lines)
    header = header_of(path, first, text)
    missing = [name for name in wanted if name not in header]
    if missing:
        refuse(path, first, f"no column {', '.join(missing)}; the header is {','.join(header)}")
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        refuse(path, first, f"the header has column {twice[0]} more than once")
    places = [header.index(name) for name in wanted]
    for line, text in lines:
        try:
            values = next(csv.reader([text], strict=True))
        except csv.Error as error:
            refuse(path, line, f"not a CSV line: {error}")
        if len(values) != len(header):
            refuse(path, line, f"{len(values)} fields; expected {len(header)} as in the header")
        yield line, [values[place] for place in places]


class _Clock:
    """Azure's time stamps as seconds from the first one, parsed once for each whole second."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._whole: dict[str, datetime] = {}
        self._first: datetime | None = None

    def since_first(self, line: int, stamp: str) -> float:
        match = _STAMP.match(stamp.strip())
        if match is None:
            self._refuse(line, stamp)
        whole, fraction, zone = match.groups(default="")
        moment = self._whole.get(whole + zone)
        if moment is None:
            try:
                moment = datetime.fromisoformat(whole + zone)
            except ValueError:
                self._refuse(line, stamp)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            self._whole = {whole + zone: moment}
        if self._first is None:
            self._first = moment
        return (moment - self._first) / timedelta(seconds=1) + float(fraction or 0)

    def _refuse(self, line: int, stamp: str) -> None:
        what = f"TIMESTAMP is {stamp[:40]!r}; expected a time such as 2023-11-16 18:15:46.6805900"
        refuse(self._path, line, what)
