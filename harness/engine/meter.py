"""Accounting: the columns of the timeline, every byte in one category, and of the requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allocators.base import IntArray, Usage
from harness.engine.group import Group
from harness.results.runlog import TIMELINE_COLUMNS
from workloads.requests import RequestTable

FIRST_CAPACITY = 1024


class Meter:
    """Grows the timeline's columns by one step or by many at once."""

    def __init__(self) -> None:
        self._size = 0
        self._columns = {
            name: np.zeros(FIRST_CAPACITY, dtype=kind) for name, kind in TIMELINE_COLUMNS.items()
        }

    def __len__(self) -> int:
        return self._size

    def record(
        self,
        start_s: float,
        ends_s: np.ndarray,
        usage: Usage,
        saturated: bool,
        waiting: IntArray | int,
        first: dict[str, int],
        every: dict[str, int],
        last: dict[str, int],
    ) -> None:
        """Append len(ends_s) steps that follow each other without a gap from `start_s` on.

        `every` holds for each of them; `first` counts happen in the first, and `last` overrides
        what differs at the end of the last.
        """
        n = len(ends_s)
        self._reserve(n)
        at = slice(self._size, self._size + n)
        put = self._columns
        put["step"][at] = np.arange(self._size, self._size + n)
        put["start_s"][self._size] = start_s
        put["start_s"][self._size + 1 : self._size + n] = ends_s[:-1]
        put["time_s"][at] = ends_s
        put["saturated"][at] = saturated
        put["waiting"][at] = waiting
        put["blocks_in_use"][at] = usage.pages
        put["logical_blocks"][at] = usage.logical_pages
        put["metadata_bytes"][at] = usage.metadata_bytes
        for name, category in category_bytes(usage, saturated).items():
            put[f"{name}_bytes"][at] = category
        for name, value in every.items():
            put[name][at] = value
        for name, value in first.items():
            put[name][self._size] = value
        for name, value in last.items():
            put[name][self._size + n - 1] = value
        self._size += n

    def append(self, steps: np.ndarray) -> None:
        """Append a block of steps, records of all columns but their numbers."""
        n = len(steps)
        self._reserve(n)
        at = slice(self._size, self._size + n)
        self._columns["step"][at] = np.arange(self._size, self._size + n)
        for name in steps.dtype.names:
            self._columns[name][at] = steps[name]
        self._size += n

    def columns(self) -> dict[str, np.ndarray]:
        return {name: column[: self._size].copy() for name, column in self._columns.items()}

    def _reserve(self, n: int) -> None:
        capacity = len(self._columns["step"])
        if self._size + n <= capacity:
            return
        more = max(capacity, n)
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.zeros(more, dtype=column.dtype)])


def category_bytes(usage: Usage, saturated: bool) -> dict[str, IntArray]:
    """Bytes of each category, [steps]; free memory is external while a request waits for it."""
    return {
        "token": usage.token,
        "reserved": usage.reserved,
        "internal": usage.internal,
        "external": usage.round_up + usage.free if saturated else usage.round_up,
        "cached": usage.cached,
        "idle": np.zeros_like(usage.free) if saturated else usage.free,
    }


def request_columns(groups: Sequence[Group], requests: RequestTable) -> dict[str, np.ndarray]:
    """Return the columns of requests that have all ended, an entry for each, by index."""
    groups = sorted(groups, key=lambda group: group.index)
    columns = {
        name: np.array([getattr(group, name) for group in groups])
        for name in (
            "arrival_s", "first_scheduled_s", "first_token_s", "finish_s",
            "prompt_tokens", "output_tokens", "sequences", "preemptions",
        )
    }  # fmt: skip
    columns["request"] = np.array([group.index for group in groups], dtype=np.int64)
    return named_columns(columns, requests)


def named_columns(columns: dict[str, np.ndarray], requests: RequestTable) -> dict[str, np.ndarray]:
    """Return the columns of requests that have all ended, with what is no number."""
    names = [requests.name(index) for index in columns["request"].tolist()]
    columns["id"] = np.array(names, dtype=object)
    columns["status"] = np.full(len(names), "finished", dtype=object)
    return columns
