"""The large columns of a run, thinned to what a page can show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.report.figures.memory import binned_bytes
from harness.results.runlog import CATEGORIES, RunLog
from harness.results.summary import normalized_latency_s, run_length_s, ttft_s
from harness.results.writer import REQUESTS, TIMELINE

BINS = 120
#: points of a distribution; more are not seen
POINTS = 160

_TIMELINE = ("step", "start_s", "time_s", *(f"{category}_bytes" for category in CATEGORIES))
_REQUESTS = ("arrival_s", "first_token_s", "finish_s", "output_tokens", "status")


@dataclass
class Memory:
    """Mean bytes of each category [6, bins] between `edges_s` [bins + 1]."""

    edges_s: np.ndarray
    category_bytes: np.ndarray
    capacity_bytes: int

    @property
    def end_s(self) -> float:
        return float(self.edges_s[-1])


@dataclass
class Distribution:
    """Sorted seconds and the share of the requests at or below each, for a step line."""

    seconds: np.ndarray
    shares: np.ndarray
    median_s: float


def read_memory(run_dir: Path) -> dict[str, Memory]:
    """The memory over time of each allocator; empty where no timeline can be read."""
    found = {}
    for name, columns in _read(run_dir / TIMELINE, _TIMELINE):
        categories = np.stack([columns[f"{category}_bytes"] for category in CATEGORIES])
        if not len(columns["step"]):
            continue
        waits_s = columns["start_s"] - np.concatenate(([0.0], columns["time_s"][:-1]))
        before = np.concatenate(([0], columns["cached_bytes"][:-1]))
        totals = {
            "gap_s": float(np.maximum(waits_s, 0).sum()),
            "gap_cached_byte_s": float((np.maximum(waits_s, 0) * before).sum()),
        }
        log = RunLog(name, int(categories[:, 0].sum()), columns, {}, totals)
        edges_s = np.linspace(0.0, run_length_s(log), BINS + 1)
        found[name] = Memory(edges_s, binned_bytes(log, edges_s), log.capacity_bytes)
    return found


def read_latencies(run_dir: Path) -> dict[str, dict[str, Distribution]]:
    """For each allocator its distributions `ttft` (s) and `normalized` (s per output token)."""
    found: dict[str, dict[str, Distribution]] = {}
    for name, columns in _read(run_dir / REQUESTS, _REQUESTS):
        log = RunLog(name, 1, {}, columns, {})
        drawn = {"ttft": ttft_s(log), "normalized": normalized_latency_s(log)}
        found[name] = {key: _thin(values) for key, values in drawn.items() if len(values)}
    return found


def _thin(seconds: np.ndarray) -> Distribution:
    ordered = np.sort(seconds)
    ranks = np.unique(np.linspace(0, len(ordered) - 1, POINTS).round().astype(np.int64))
    return Distribution(ordered[ranks], (ranks + 1) / len(ordered), float(np.median(ordered)))


def _read(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (allocator, columns). The writer gives every allocator row groups of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces: dict[str, list[Any]] = {}
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["allocator", *names])
                if table.num_rows:
                    pieces.setdefault(str(table["allocator"][0].as_py()), []).append(table)
    except (OSError, pa.ArrowException, KeyError):
        return
    for allocator, tables in pieces.items():
        whole = pa.concat_tables(tables)
        yield allocator, {name: whole[name].to_numpy(zero_copy_only=False) for name in names}
