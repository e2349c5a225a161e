"""A CSV of one's own: `arrival_s,prompt_tokens,output_tokens,ttft_s,e2e_s`, a request a line.

Other columns are ignored, lines that start with # are comments, and an output of 0 tokens says that
the request failed.
"""

from __future__ import annotations

import csv
from typing import Any

import numpy as np

from harness.replay.formats import fields
from harness.replay.formats.source import Source
from harness.replay.records import Records

NAME = "CSV"
COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s")


def runs(source: Source) -> list[Any] | None:
    """The lines, numbered, header first; None for a file whose header names none of the columns."""
    if source.documents is not None:
        return None
    lines = [
        (number, line)
        for number, line in enumerate(source.lines, 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines or not set(COLUMNS) & set(_cells(lines[0][1])):
        return None
    return [lines]


def read(where: str, run: Any) -> Records:
    """Read the lines."""
    number, head = run[0]
    header = _cells(head)
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        fields.refuse(
            f"{where}:{number}", f"has no column {', '.join(missing)}; expected {','.join(COLUMNS)}"
        )
    places = [header.index(name) for name in COLUMNS]
    rows = []
    for number, line in run[1:]:
        at, cells = f"{where}:{number}", _cells(line)
        if len(cells) != len(header):
            fields.refuse(at, f"has {len(cells)} fields and the header {len(header)}")
        arrival, prompt, output, ttft, e2e = (cells[place] for place in places)
        output_tokens = fields.tokens(at, "output_tokens", _number(output))
        failed = output_tokens == 0
        rows.append(
            (
                fields.seconds(at, "arrival_s", _number(arrival)),
                fields.tokens(at, "prompt_tokens", _number(prompt)),
                output_tokens,
                0.0 if failed else fields.seconds(at, "ttft_s", _number(ttft)),
                0.0 if failed else fields.seconds(at, "e2e_s", _number(e2e)),
            )
        )
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))
    return Records(
        format=NAME,
        start_s=columns[:, 0],
        prompt_tokens=columns[:, 1].astype(np.int64),
        output_tokens=columns[:, 2].astype(np.int64),
        ttft_s=columns[:, 3],
        e2e_s=columns[:, 4],
        failed=columns[:, 2] == 0,
    )


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]), [])]
    except csv.Error:
        return []


def _number(text: str) -> object:
    """The number that a cell holds, or the text where it holds none."""
    try:
        return float(text)
    except ValueError:
        return text
