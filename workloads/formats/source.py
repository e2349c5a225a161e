"""Reading a file line by line, with errors that say where: FILE:LINE: what is wrong."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from workloads.errors import WorkloadError

GZIP_MAGIC = b"\x1f\x8b"
MAX_TOKENS = 2**31 - 1  # a longer request is a typing error, and sums of lengths stay in int64
MAX_HASH_ID = 2**50  # beyond any trace; block ids are held to MAX_IDENTITIES as well
MAX_IDENTITIES = 2**63  # block id * block size + offset is an int64


def refuse(path: str | Path, line: int | str, what: str) -> NoReturn:
    """Raise WorkloadError `FILE:LINE: what`. `line` may be the place inside a JSON document."""
    raise WorkloadError(f"{path}:{line}: {what}")


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without its line end), blank lines left out.

    gzip is recognised by its first bytes, whatever the name. Raises WorkloadError for a file that
    is missing, unreadable, empty, not UTF-8, or a damaged gzip.
    """
    number = 0
    empty = True
    try:
        with open(path, "rb") as probe:
            compressed = probe.read(2) == GZIP_MAGIC
        with gzip.open(path, "rb") if compressed else open(path, "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                # utf-8-sig drops the byte order mark that spreadsheets put first.
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    empty = False
                    yield number, text
    except UnicodeDecodeError as error:
        refuse(path, number, f"not UTF-8 text (byte {error.start} of the line)")
    except (EOFError, zlib.error, gzip.BadGzipFile):
        refuse(path, number + 1, "the gzip data ends early or is damaged; fetch the file again")
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be read: {error.strerror or error}") from None
    if empty:
        raise WorkloadError(f"{path}: the file is empty; expected requests")


def parse_json(path: str | Path, line: int, text: str) -> Any:
    """The JSON value in `text`, which starts at `line`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        refuse(path, line + error.lineno - 1, f"not valid JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        refuse(path, line, f"not readable JSON: {error}")


def read_document(path: str | Path) -> Any:
    """The one JSON value that a whole file holds."""
    lines = list(read_lines(path))
    # Blank lines were dropped; put them back so that line numbers in messages are the file's.
    text = [""] * lines[-1][0]
    for number, line in lines:
        text[number - 1] = line
    return parse_json(path, 1, "\n".join(text))


def tokens(path: str | Path, line: int | str, name: str, value: object) -> int:
    """`value` as a number of tokens >= 0. CSV text and whole floats such as 7564.0 are accepted."""
    if type(value) is int:
        count = value
    else:
        parsed = _float(value)
        if not math.isfinite(parsed) or parsed != math.floor(parsed):
            refuse(path, line, f"{name} is {_shown(value)}; expected a whole number of tokens >= 0")
        count = int(parsed)
    if not 0 <= count <= MAX_TOKENS:
        refuse(path, line, f"{name} is {_shown(value)}; expected 0 to {MAX_TOKENS} tokens")
    return count


def seconds(
    path: str | Path, line: int | str, name: str, value: object, unit_s: float = 1.0
) -> float:
    """`value`, a finite time in units of `unit_s` seconds and >= 0, in seconds."""
    parsed = _float(value)
    if not math.isfinite(parsed) or parsed < 0:
        refuse(path, line, f"{name} is {_shown(value)}; expected a finite time >= 0")
    return parsed * unit_s


def _float(value: object) -> float:
    """A JSON number or CSV text as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
