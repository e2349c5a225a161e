"""What one allocator variant leaves behind: a log of columns, and one row of the result table.

The column tables below are the schema of `timeline.parquet` and `requests.parquet`. A new column is
added here, and in `harness.results.bins` it is said whether it lasts for a step or happens in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.results.token_gaps import TokenGaps

#: arrays of one length by their names
Columns = dict[str, np.ndarray]

CATEGORIES = ("token", "reserved", "internal", "expired", "external", "cached", "idle")
BYTES = tuple(f"{category}_bytes" for category in CATEGORIES)
STATUSES = ("ok", "oom", "unsupported", "error")
#: what kept the head of the queue out of a step: exactly one holds of each
LIMITS = ("nobody", "memory", "sequences", "tokens", "preemption", "policy")
LIMITED_BY = tuple(f"limited_by_{limit}" for limit in LIMITS)
#: what the time of a step is made of, as far as one part does not hide another
PARTS = ("linear", "attention", "all_reduce", "software", "copies", "swaps", "maps")
PART_SECONDS = tuple(f"{part}_s" for part in PARTS)

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
    **dict.fromkeys(BYTES, np.int64),
    "start_s": np.float64,
    "batch": np.int64,
    "logical_blocks": np.int64,
    "copied_bytes": np.int64,
    "metadata_bytes": np.int64,
    "saturated": np.bool_,
    **dict.fromkeys(LIMITED_BY, np.bool_),
    **dict.fromkeys(PART_SECONDS, np.float64),
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
    "itl_max_s": np.float64,
    "status": np.object_,
}


@dataclass
class RunLog:
    """Per-step and per-request columns of one variant, on the clock of its run.

    timeline: one array [steps] a name of `TIMELINE_COLUMNS`. Step i runs from start_s[i] to
        time_s[i]; between two steps, and before the first, the engine may wait for an arrival (a
        gap), in which nothing is allocated but what is cached. The seconds of the parts sum to
        those of the step, or are NaN where nobody can tell them apart. One that was read from a
        file may be in bins, and has [bins] of the names of `bins.BINNED_COLUMNS`.
    requests: one array [requests] a name of `REQUEST_COLUMNS`; times are NaN where it never came
        to it. `output_tokens` is per sequence, `itl_max_s` the longest gap between two tokens.
    totals: `gap_s` (seconds spent in gaps), `gap_cached_byte_s` (cached bytes integrated over
        them), `allocator_host_s` (measured host seconds inside the allocator), `looked_up_tokens`
        (of all admissions), `hit_bytes` (KV found in the prefix cache) and `wasted_tokens`
        (computed again after a preemption), and where the family has them `evictions` (cached
        blocks), `maps`, `unmaps` (calls) and `map_s` (the seconds that they took).
    token_gaps: those between the tokens of all requests; none where it was read from a file.
    """

    allocator: str
    capacity_bytes: int
    timeline: Columns
    requests: Columns
    totals: dict[str, float]
    token_gaps: TokenGaps = field(default_factory=TokenGaps)

    @property
    def steps(self) -> int:
        """How many steps there were; rows of the timeline unless it is in bins."""
        steps = self.timeline.get("steps")
        return len(self.timeline["step"]) if steps is None else int(steps.sum())

    @property
    def busy_s(self) -> np.ndarray:
        """[rows of the timeline] seconds that the steps of each take."""
        busy_s = self.timeline.get("busy_s")
        return self.timeline["time_s"] - self.timeline["start_s"] if busy_s is None else busy_s

    def check(self) -> None:
        """Raise ValueError where the log contradicts itself: columns, lengths, bytes or clock.

        The timeline is not in bins.
        """
        check = LogCheck(self.allocator, self.capacity_bytes)
        check.steps(self.timeline)
        check.requests(self.requests)
        check.totals(self.totals)


class LogCheck:
    """Holds a log to its rules, block by block; each call raises ValueError for what breaks one."""

    def __init__(self, allocator: str, capacity_bytes: int) -> None:
        self._allocator, self._capacity_bytes = allocator, capacity_bytes
        self._steps = 0
        self._end_s = self._waited_s = 0.0

    def steps(self, block: Columns) -> None:
        """Check steps that follow those checked before."""
        _check_columns(f"{self._allocator}: timeline", block, TIMELINE_COLUMNS)
        self._steps += len(block["step"])
        if not len(block["step"]):
            return
        categories = np.stack([block[name] for name in BYTES])
        wrong = np.flatnonzero(
            (categories.sum(axis=0) != self._capacity_bytes) | (categories < 0).any(axis=0)
        )
        if len(wrong):
            parts = dict(zip(CATEGORIES, categories[:, wrong[0]].tolist(), strict=True))
            raise ValueError(
                f"{self._allocator}: memory of step {block['step'][wrong[0]]} does not sum "
                f"to the capacity of {self._capacity_bytes} bytes: {parts}"
            )
        wrong = np.flatnonzero(sum(block[name].astype(np.int64) for name in LIMITED_BY) != 1)
        if len(wrong):
            raise ValueError(
                f"{self._allocator}: step {block['step'][wrong[0]]} is not limited by one of "
                f"{', '.join(LIMITS)}"
            )
        start_s, time_s = block["start_s"], block["time_s"]
        waits_s = start_s - np.concatenate(([self._end_s], time_s[:-1]))
        self._end_s = float(time_s[-1])
        if (time_s < start_s).any() or (waits_s < -self._tolerance_s).any():
            raise ValueError(f"{self._allocator}: the clock runs backwards in the timeline")
        step_s = time_s - start_s
        apart_s = np.abs(sum(block[name] for name in PART_SECONDS) - step_s)
        # The clock is as exact as its last bit, which is worth more the longer the run.
        wrong = np.flatnonzero(apart_s > 1e-9 * step_s + 4 * np.spacing(np.abs(time_s)))
        if len(wrong):
            raise ValueError(
                f"{self._allocator}: the parts of step {block['step'][wrong[0]]} do not sum to its "
                f"{step_s[wrong[0]]} s"
            )
        self._waited_s += float(waits_s.sum())

    def requests(self, block: Columns) -> None:
        """Check requests."""
        _check_columns(f"{self._allocator}: requests", block, REQUEST_COLUMNS)

    def totals(self, totals: dict[str, float]) -> None:
        """Check the totals, after all steps."""
        gap_s = totals.get("gap_s", 0.0)
        if self._steps and abs(self._waited_s - gap_s) > self._tolerance_s:
            raise ValueError(
                f"{self._allocator}: totals say {gap_s} s of gaps, the timeline {self._waited_s} s"
            )

    @property
    def _tolerance_s(self) -> float:
        return 1e-6 * max(1.0, self._end_s)


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


def _check_columns(where: str, columns: Columns, expected: dict[str, type]) -> None:
    missing = [name for name in expected if name not in columns]
    unknown = [name for name in columns if name not in expected]
    if missing or unknown:
        raise ValueError(f"{where}: missing columns {missing}, unknown columns {unknown}")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"{where}: columns of different lengths {sorted(lengths)}")
