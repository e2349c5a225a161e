"""Fields of a JSON document, checked as they are read: what is wrong is named with its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from harness.replay.errors import ReplayError
from workloads.requests import FloatArray, IntArray

#: tokens and seconds beyond any benchmark; larger ones are damage
MOST_TOKENS, MOST_SECONDS = 2**31, 1e12
#: JSON may hold whole numbers that no float can
MOST = int(1e300)


def refuse(where: str, what: str) -> NoReturn:
    """Raise ReplayError: where, and what is wrong there."""
    raise ReplayError(f"{where}: {what}")


def is_number(value: object) -> bool:
    """Whether a JSON value is a number that a float can hold; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MOST


def seconds(where: str, name: str, value: object, scale: float = 1.0) -> float:
    """A time, in units of `scale` seconds; negative ones are judged later, with what they mean."""
    if not is_number(value) or abs(value) * scale > MOST_SECONDS:
        refuse(where, f"{name} is {shown(value)}; expected a number")
    return float(value * scale)


def nanoseconds(where: str, name: str, value: object) -> int:
    """A time stamp; whole nanoseconds since 1970 do not fit a float exactly."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        refuse(where, f"{name} is {shown(value)}; expected whole nanoseconds")
    return value


def from_first(stamps_ns: Sequence[int]) -> FloatArray:
    """Seconds from the earliest of some time stamps, float64[n]."""
    first = min(stamps_ns, default=0)
    return np.array([(stamp - first) * 1e-9 for stamp in stamps_ns], dtype=np.float64)


def tokens(where: str, name: str, value: object) -> int:
    """A count of tokens."""
    if not is_number(value) or value != int(value) or not 0 <= value <= MOST_TOKENS:
        refuse(where, f"{name} is {shown(value)}; expected a whole number >= 0")
    return int(value)


def mapping(where: str, name: str, value: object) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        refuse(where, f"{name} is {shown(value)}; expected a JSON object")
    return value


def items(where: str, name: str, value: object, length: int | None = None) -> Sequence[Any]:
    """A JSON list, of `length` entries where that is known."""
    if not isinstance(value, list):
        refuse(where, f"{name} is {shown(value)}; expected a list")
    if length is not None and len(value) != length:
        refuse(where, f"{name} has {len(value)} entries and input_lens {length}; expected as many")
    return value


def token_column(where: str, name: str, values: Sequence[Any]) -> IntArray:
    """A column of counts of tokens, int64[n]."""
    found = [tokens(where, f"{name}[{i}]", value) for i, value in enumerate(values)]
    return np.array(found, dtype=np.int64)


def second_column(where: str, name: str, values: Sequence[Any]) -> FloatArray:
    """A column of seconds, float64[n]."""
    found = [seconds(where, f"{name}[{i}]", value) for i, value in enumerate(values)]
    return np.array(found, dtype=np.float64)


def gap_columns(where: str, name: str, values: Sequence[Any]) -> list[FloatArray]:
    """Lists of gaps, one a request, in seconds."""
    return [
        second_column(where, f"{name}[{i}]", items(where, f"{name}[{i}]", gaps))
        for i, gaps in enumerate(values)
    ]


def optional_rate(value: object) -> float | None:
    """A request rate: a positive number or `inf`; None where a client wrote something else."""
    if isinstance(value, str):
        return math.inf if value.lower() in ("inf", "infinity") else None
    if isinstance(value, float) and value == math.inf:
        return math.inf
    return float(value) if is_number(value) and value > 0 else None


def optional_count(value: object) -> int | None:
    """A closed loop's concurrency: a whole number of at least 1, else None."""
    return int(value) if is_number(value) and value >= 1 and value == int(value) else None


def optional_positive(value: object) -> float | None:
    """A positive number, else None."""
    return float(value) if is_number(value) and value > 0 else None


def optional_text(value: object) -> str | None:
    """A text in one line, else None."""
    return " ".join(value.split())[:200] or None if isinstance(value, str) else None


def shown(value: object) -> str:
    """A value in a message, cut to a few characters."""
    text = " ".join(repr(value)[:200].split())
    return text if len(text) <= 40 else f"{text[:37]}..."
