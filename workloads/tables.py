"""Length tables: quantiles that are shipped, and a user's CSV of lengths or of quantiles.

A shipped table holds the quantiles of a public set of lengths, not the lengths themselves, with
source and licence in its header. LEVELS are finer at the top, so that interpolating between them
keeps the mean within 0.3 %. The recipe is `numpy.quantile(lengths, LEVELS)`, and
tests/workloads/test_tables.py repeats it where the sources are at hand.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from workloads.errors import WorkloadError, one_of
from workloads.formats.columns import LENGTH_COLUMNS
from workloads.formats.csv_tables import AZURE, BURSTGPT, header_of
from workloads.formats.source import read_lines, refuse, tokens
from workloads.requests import FloatArray, IntArray

LEVELS: FloatArray = np.concatenate([np.arange(0, 990, 5), np.arange(990, 1001)]) / 1000
LEVEL_COLUMN = "quantile"

_FOLDER = Path(__file__).parent / "data"
_COLUMNS = {
    "prompt": [*(pair[0] for pair in LENGTH_COLUMNS), AZURE[1], BURSTGPT[1], "input_length"],
    "output": [*(pair[1] for pair in LENGTH_COLUMNS), AZURE[2], BURSTGPT[2]],
    "turns": ["turns"],
}


def shipped() -> list[str]:
    """Names of the quantile tables that are shipped."""
    return sorted(file.stem for file in _FOLDER.glob("*.csv"))


def shipped_path(name: str, where: str) -> Path:
    """Where the shipped table `name` is. Raises WorkloadError with the closest names."""
    return _FOLDER / f"{one_of(f'{where}.table', name, shipped())}.csv"


def read_quantiles(
    path: str | Path, column: str | None, role: str
) -> tuple[FloatArray | None, FloatArray | IntArray]:
    """Read one column of a CSV with a header; lines that start with # are comments.

    Returns (levels float64[k] from 0 to 1, lengths float64[k], neither falling) for a table with a
    column `quantile`, else (None, lengths int64[k] >= 1, sorted), lengths of 0 left out. `column`
    defaults to a usual name for the `role`, or to the only column. Raises WorkloadError.
    """
    path = Path(path).expanduser()
    lines = ((line, text) for line, text in read_lines(path) if not text.startswith("#"))
    first, text = next(lines, (1, ""))
    header = header_of(path, first, text)
    others = [name for name in header if name != LEVEL_COLUMN]
    if column is None:
        usual = [name for name in _COLUMNS[role] if name in others]
        column = usual[0] if usual else others[0] if len(others) == 1 else None
    if column is None or column not in others:
        raise WorkloadError(
            f"{path}:{first}: no column {column or 'for ' + role}; set workload.{role}.column to "
            f"one of {', '.join(others) or '(none)'}"
        )
    levels, lengths = [], []
    for line, text in lines:
        try:
            record = dict(zip(header, next(csv.reader([text], strict=True)), strict=True))
        except (csv.Error, ValueError):
            refuse(path, line, f"expected {len(header)} fields as in the header")
        if LEVEL_COLUMN in record:
            levels.append(_real(path, line, LEVEL_COLUMN, record[LEVEL_COLUMN]))
            lengths.append(_real(path, line, column, record[column]))
        else:
            lengths.append(tokens(path, line, column, record[column]))
    if LEVEL_COLUMN not in header:
        kept = np.sort(np.array(lengths, dtype=np.int64))
        kept = kept[kept >= 1]
        if not len(kept):
            raise WorkloadError(f"{path}: no length >= 1 in column {column}")
        return None, kept
    steps = len(levels) >= 2 and levels[0] == 0 and levels[-1] == 1
    if not steps or min(np.diff(levels)) <= 0 or min(np.diff(lengths)) < 0:
        raise WorkloadError(f"{path}: expected quantiles that rise from 0 to 1, and their lengths")
    return np.array(levels), np.array(lengths)


def _real(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        refuse(path, line, f"{name} is {text!r}; expected a finite number >= 0")
    return value
