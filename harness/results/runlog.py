"""What one allocator variant leaves behind: a log of columns, and one row of the result table.

The column tables below are the schema of `timeline.parquet` and `requests.parquet`. A new column is
added here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CATEGORIES = ("token", "reserved", "internal", "external", "cached", "idle")
STATUSES = ("ok", "oom", "unsupported", "error")

# Order is that of the file; `allocator` comes first there and is added by the writer.
TIMELINE_COLUMNS: dict[str, type] = {
    "step": np.int64,
    "time_s": np.float64,
    "running": np.int64,
    "waiting": np.int64,
    "batched_tokens": np.int64,
    "blocks_in_use": np.int64,
    "preemptions": np.int64,
    "hit_tokens": np.int64,
    **{f"{category}_bytes": np.int64 for category in CATEGORIES},
    "start_s": np.float64,
    "batch": np.int64,
    "logical_blocks": np.int64,
    "copied_bytes": np.int64,
    "metadata_bytes": np.int64,
    "saturated": np.bool_,
}
REQUEST_COLUMNS: dict[str, type] = {
    "request": np.int64,
    "id": np.object_,
    "arrival_s": np.float64,
    "first_scheduled_s": np.float64,
    "first_token_s": np.float64,
    "finish_s": np.float64,
    "prompt_tokens": np.int64,
    "output_tokens": np.int64,
    "sequences": np.int64,
    "preemptions": np.int64,
    "status": np.object_,
}


@dataclass
class RunLog:
    """Per-step and per-request columns of one variant, on the clock of its run.

    timeline: one array [steps] a name of `TIMELINE_COLUMNS`. Step i runs from start_s[i] to
        time_s[i]; between two steps, and before the first, the engine may wait for an arrival (a
        gap), in which nothing is allocated but what is cached.
    requests: one array [requests] a name of `REQUEST_COLUMNS`; times are NaN where it never came
        to it. `output_tokens` is per sequence.
    totals: `gap_s` (seconds spent in gaps), `gap_cached_byte_s` (cached bytes integrated over
        them), `allocator_host_s` (measured host seconds inside the allocator), `looked_up_tokens`
        (of all admissions), `hit_bytes` (KV found in the prefix cache) and `wasted_tokens`
        (computed again after a preemption), and where the family has them `evictions` (cached
        blocks), `maps`, `unmaps` (calls) and `map_s` (the seconds that they took).
    """

    allocator: str
    capacity_bytes: int
    timeline: dict[str, np.ndarray]
    requests: dict[str, np.ndarray]
    totals: dict[str, float]

    @property
    def steps(self) -> int:
        return len(self.timeline["step"])

    def category_bytes(self) -> np.ndarray:
        """[6, steps] int64: the memory categories in the order of `CATEGORIES`."""
        return np.stack([self.timeline[f"{category}_bytes"] for category in CATEGORIES])

    def check(self) -> None:
        """Raise ValueError where the log contradicts itself: columns, lengths, bytes or clock."""
        _check_columns(f"{self.allocator}: timeline", self.timeline, TIMELINE_COLUMNS)
        _check_columns(f"{self.allocator}: requests", self.requests, REQUEST_COLUMNS)
        if not self.steps:
            return
        categories = self.category_bytes()
        wrong = np.flatnonzero(
            (categories.sum(axis=0) != self.capacity_bytes) | (categories < 0).any(axis=0)
        )
        if len(wrong):
            parts = dict(zip(CATEGORIES, categories[:, wrong[0]].tolist(), strict=True))
            raise ValueError(
                f"{self.allocator}: memory of step {self.timeline['step'][wrong[0]]} does not sum "
                f"to the capacity of {self.capacity_bytes} bytes: {parts}"
            )
        start_s, time_s = self.timeline["start_s"], self.timeline["time_s"]
        waits_s = start_s - np.concatenate(([0.0], time_s[:-1]))
        tolerance_s = 1e-6 * max(1.0, float(time_s[-1]))
        if (time_s < start_s).any() or (waits_s < -tolerance_s).any():
            raise ValueError(f"{self.allocator}: the clock runs backwards in the timeline")
        gap_s = self.totals.get("gap_s", 0.0)
        if abs(float(waits_s.sum()) - gap_s) > tolerance_s:
            raise ValueError(
                f"{self.allocator}: totals say {gap_s} s of gaps, the timeline {waits_s.sum()} s"
            )


@dataclass
class ResultRow:
    """One line of the result table; `metrics` is empty unless the status is `ok`.

    output_digest: of a real run, a hash of every request's emitted tokens in request order.
    loop: what served it, `steps` (the engine, step by step) or `compiled`; no result depends on it.
    """

    allocator: str
    status: str = "ok"
    reason: str | None = None
    metrics: dict[str, float | int | None] = field(default_factory=dict)
    output_digest: str | None = None
    loop: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def _check_columns(where: str, columns: dict[str, np.ndarray], expected: dict[str, type]) -> None:
    missing = [name for name in expected if name not in columns]
    unknown = [name for name in columns if name not in expected]
    if missing or unknown:
        raise ValueError(f"{where}: missing columns {missing}, unknown columns {unknown}")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"{where}: columns of different lengths {sorted(lengths)}")
