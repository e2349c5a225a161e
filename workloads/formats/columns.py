"""Which column, or key, of a user's own list of requests holds what, and in which unit.

Prompt and output are pairs of names that public lists use. A time is read where its name says the
unit, as in `arrival_s` or `timestamp_ms`, and refused where it does not, as in `timestamp`: taken
for the wrong unit, or left out, it would change every figure of a run and look like a result.
`workload.columns` names what has another name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from workloads.errors import WorkloadError, one_of
from workloads.formats.source import refuse
from workloads.spec import ColumnSpec

LENGTH_COLUMNS = (
    ("num_prefill_tokens", "num_decode_tokens"),
    ("prompt_length", "output_length"),
    ("prompt_tokens", "output_tokens"),
)
#: names of public lists, and what makes a name of a user's own clear, in seconds
TIME_COLUMNS_S = {"arrived_at": 1.0, "timestamp_s": 1.0, "timestamp_ms": 1e-3}
UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
#: columns of public lists that follow from the others
DERIVED = ("num_total_tokens", "pd_ratio", "total_tokens")

_UNIT_WORDS = {
    **{unit: unit for unit in UNITS_S},
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("usec", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("nsec", "nanos", "nanosecond", "nanoseconds"), "ns"),
}
# A name made only of these words, and of at least one of the first, is when a request came.
_TIME_WORDS = {
    *("arrival", "arrivals", "arrive", "arrives", "arrived", "arrivaltime", "time", "times"),
    *("timestamp", "timestamps", "stamp", "ts", "t", "at", "date", "datetime", "clock"),
    *("start", "started", "created", "sent", "submitted"),
}
_OTHER_WORDS = {
    *("request", "requests", "req", "relative", "offset", "unix", "epoch", "utc", "in"),
}


def length_columns(header: Sequence[str], columns: ColumnSpec) -> tuple[str, str]:
    """Return the columns of prompt and output lengths, by given names or else known ones.

    It is the first pair of which most is there; the reader refuses what is missing.
    """
    pairs = [(columns.prompt or prompt, columns.output or out) for prompt, out in LENGTH_COLUMNS]
    return max(pairs, key=lambda pair: sum(name in header for name in pair))


def arrival_column(
    path: str | Path, line: int, header: Sequence[str], columns: ColumnSpec
) -> tuple[str, float] | None:
    """Return the column of arrival times and its unit in seconds; None if there is none.

    Raises WorkloadError for a name that looks like a time and does not say its unit, and where
    several might be meant.
    """
    if columns.arrival_unit is not None:
        one_of("workload.columns.arrival_unit", columns.arrival_unit, UNITS_S)
        if columns.arrival is None:
            raise WorkloadError("workload.columns.arrival_unit needs workload.columns.arrival=NAME")
    if columns.arrival is not None:
        return columns.arrival, UNITS_S[columns.arrival_unit or _unit(columns.arrival) or "s"]
    known = [name for name in TIME_COLUMNS_S if name in header]
    if known:
        return known[0], TIME_COLUMNS_S[known[0]]
    likely = [name for name in header if _is_time(name)]
    unit = _unit(likely[0]) if likely else None
    if len(likely) == 1 and unit:
        return likely[0], UNITS_S[unit]
    if likely:
        _refuse_times(path, line, likely)
    return None


def _refuse_times(path: str | Path, line: int, likely: list[str]) -> NoReturn:
    what = f"{', '.join(likely)}: which of them says when a request came"
    if len(likely) == 1:
        what = f"{likely[0]!r} seems to say when a request came, but not in which unit"
    refuse(
        path,
        line,
        f"{what}; workload.columns.arrival={likely[0]} workload.columns.arrival_unit=U reads it in "
        f"U={'|'.join(UNITS_S)}, and so does a name that ends in the unit, such as arrival_s",
    )


def unread(header: Sequence[str], read: Sequence[str]) -> list[str]:
    """Return the columns that are not read and do not follow from those that are."""
    return [name for name in header if name and name not in read and name not in DERIVED]


def _is_time(name: str) -> bool:
    words = _words(name)
    return bool(_TIME_WORDS & set(words)) and all(
        word in _TIME_WORDS or word in _OTHER_WORDS or word in _UNIT_WORDS for word in words
    )


def _unit(name: str) -> str | None:
    """Return the unit that a name ends in, if it ends in one."""
    return _UNIT_WORDS.get((_words(name) or [""])[-1])


def _words(name: str) -> list[str]:
    """Return the words of `arrival_time_ms`, `arrivalTimeMs` or `Arrival time (ms)`, lower."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
