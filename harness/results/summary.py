"""From a variant's log to its metrics, in one pass. Definitions are in `docs/metrics.md`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from harness.results.metrics import METRICS
from harness.results.runlog import (
    BYTES,
    CATEGORIES,
    LIMITED_BY,
    PART_SECONDS,
    PARTS,
    Columns,
    LogCheck,
    RunLog,
)
from harness.results.slo import SloSpec, good
from harness.results.stream import blocks_of
from harness.results.token_gaps import TokenGaps

Value = float | int | None
PERCENTS = (50, 90, 99)


def summarize(log: RunLog, slo: SloSpec | None = None) -> dict[str, Value]:
    """Every metric of `METRICS`, in its order: shares as fractions, None where undefined.

    `slo`: the limits that a request has to keep to be good; none by default.

    Raises ValueError when the log contradicts itself (see `RunLog.check`).
    """
    summary = Summary(log.allocator, log.capacity_bytes, slo)
    summary.token_gaps(*log.token_gaps.values())
    for block in blocks_of(log.timeline):
        summary.steps(block)
    for block in blocks_of(log.requests):
        summary.requests(block)
    return summary.metrics(log.totals)


def run_length_s(log: RunLog) -> float:
    """Return the seconds from time 0 to the end of the last step, on the clock of the run."""
    return float(log.timeline["time_s"][-1]) if log.steps else float(log.totals.get("gap_s", 0.0))


class Summary:
    """A consumer of a log's blocks that has the metrics when the run has ended.

    Of steps it keeps sums: whole numbers exactly, the others as one sum a block, added up exactly
    at the end. Of requests it keeps four latencies each, for percentiles are of all of them, and
    of gaps between tokens the different values.
    """

    def __init__(self, allocator: str, capacity_bytes: int, slo: SloSpec | None = None) -> None:
        self._capacity_bytes = capacity_bytes
        self._check = LogCheck(allocator, capacity_bytes)
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self._peaks: dict[str, int] = defaultdict(int)
        self._latencies: dict[str, list[np.ndarray]] = {name: [] for name in LATENCIES}
        self._token_gaps = TokenGaps()
        self._slo = slo or SloSpec()
        self._end_s: float | None = None

    def steps(self, block: Columns) -> None:
        """See `stream.Consumer`; raises ValueError where the block contradicts itself."""
        self._check.steps(block)
        if not len(block["step"]):
            return
        step_s = block["time_s"] - block["start_s"]
        for name, seconds in (("", step_s), ("saturated_", step_s * block["saturated"])):
            self._sums[f"{name}s"].append(float(seconds.sum()))
            for column in (*BYTES, "batch"):
                self._sums[f"{name}{column}"].append(float((block[column] * seconds).sum()))
        for column in ("blocks_in_use", "logical_blocks"):
            self._sums[column].append(float((block[column] * step_s).sum()))
        for column in LIMITED_BY:
            self._sums[column].append(float((block[column] * step_s).sum()))
        for column in PART_SECONDS:
            self._sums[column].append(float(block[column].sum()))
        for column in ("preemptions", "hit_tokens", "batched_tokens", "copied_bytes"):
            self._counts[column] += int(block[column].sum())
        for column in ("batch", "metadata_bytes"):
            self._peaks[column] = max(self._peaks[column], int(block[column].max()))
        self._counts["steps"] += len(step_s)
        self._end_s = float(block["time_s"][-1])

    def requests(self, block: Columns) -> None:
        """See `stream.Consumer`; raises ValueError where the block contradicts itself."""
        self._check.requests(block)
        finished = _finished(block)
        outputs = block["output_tokens"] * block["sequences"]
        self._counts["requests"] += len(finished)
        self._counts["finished"] += int(finished.sum())
        self._counts["good"] += int(good(block, self._slo).sum())
        self._counts["outputs"] += int(outputs[finished].sum())
        self._counts["prompts"] += int(block["prompt_tokens"][finished].sum())
        for name, of in LATENCIES.items():
            self._latencies[name].append(of(block))

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """See `stream.Consumer`."""
        self._token_gaps.add(seconds, counts)

    def metrics(self, totals: dict[str, float]) -> dict[str, Value]:
        """Every metric of `METRICS`, in its order, of a run that has ended with these totals."""
        self._check.totals(totals)
        values = {
            **self._memory(totals),
            **self._time(totals),
            **self._throughput(totals),
            **self._latency_metrics(),
            **self._costs(totals),
        }
        return {metric.name: _number(values[metric.name]) for metric in METRICS}

    def _sum(self, name: str) -> float:
        return math.fsum(self._sums[name])

    def _memory(self, totals: dict[str, float]) -> dict[str, Value]:
        gap_s = totals.get("gap_s", 0.0)
        gap_cached = totals.get("gap_cached_byte_s", 0.0)
        in_gaps = {"cached": gap_cached, "idle": gap_s * self._capacity_bytes - gap_cached}
        length_s, saturated_s = self._sum("s") + gap_s, self._sum("saturated_s")
        values: dict[str, Value] = {}
        for name in CATEGORIES:
            byte_s = self._sum(f"{name}_bytes") + in_gaps.get(name, 0.0)
            saturated_byte_s = self._sum(f"saturated_{name}_bytes")
            values[f"{name}_share"] = _ratio(byte_s, length_s * self._capacity_bytes)
            values[f"saturated_{name}_share"] = _ratio(
                saturated_byte_s, saturated_s * self._capacity_bytes
            )
        physical, logical = self._sum("blocks_in_use"), self._sum("logical_blocks")
        return {
            **values,
            "sharing_saved": _ratio(logical - physical, logical),
            "mean_batch": _ratio(self._sum("batch"), length_s),
            "peak_batch": self._peaks["batch"],
            "saturated_mean_batch": _ratio(self._sum("saturated_batch"), saturated_s),
        }

    def _time(self, totals: dict[str, float]) -> dict[str, Value]:
        gap_s = totals.get("gap_s", 0.0)
        length_s = self._sum("s") + gap_s
        limited_s = {name: self._sum(name) for name in LIMITED_BY}
        limited_s["limited_by_nobody"] += gap_s
        parts_s = {part: self._sum(f"{part}_s") for part in PARTS} | {"gap": gap_s}
        return {
            **{f"{name}_share": _ratio(s, length_s) for name, s in limited_s.items()},
            **{f"time_{part}_share": _ratio(s, length_s) for part, s in parts_s.items()},
        }

    def _throughput(self, totals: dict[str, float]) -> dict[str, Value]:
        finished, outputs = self._counts["finished"], self._counts["outputs"]
        length_s = self._length_s(totals)
        good_requests = self._counts["good"] if self._slo.limits else None
        return {
            "goodput_requests_per_s": _maybe_ratio(good_requests, length_s),
            "good_share": _maybe_ratio(good_requests, self._counts["requests"]),
            "finished_requests": finished,
            "requests_per_s": _ratio(finished, length_s),
            "output_tokens_per_s": _ratio(outputs, length_s),
            "total_tokens_per_s": _ratio(self._counts["prompts"] + outputs, length_s),
        }

    def _length_s(self, totals: dict[str, float]) -> float:
        return float(totals.get("gap_s", 0.0)) if self._end_s is None else self._end_s

    def _latency_metrics(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name, parts in self._latencies.items():
            seconds = np.concatenate([np.empty(0), *parts])
            if name == "normalized_latency":
                values["normalized_latency_mean_s"] = _mean(seconds)
            else:
                p50, p90, p99 = np.percentile(seconds, PERCENTS) if len(seconds) else (None,) * 3
                values |= _statistics(name, _mean(seconds), p50, p90, p99)
        gaps = self._token_gaps
        return values | _statistics("itl", gaps.mean(), *gaps.percentiles(PERCENTS))

    def _costs(self, totals: dict[str, float]) -> dict[str, Value]:
        steps, host_s = self._counts["steps"], totals.get("allocator_host_s")
        maps, unmaps = totals.get("maps"), totals.get("unmaps")
        hits, looked_up = self._counts["hit_tokens"], totals.get("looked_up_tokens", 0.0)
        swapped, hit_bytes = totals.get("swapped_bytes"), totals.get("hit_bytes")
        wasted, evictions = totals.get("wasted_tokens"), totals.get("evictions")
        resident = totals.get("resident_peak_bytes")
        return {
            "preemptions": self._counts["preemptions"],
            "hit_tokens": hits,
            "hit_bytes": None if hit_bytes is None else int(hit_bytes),
            "prefix_hit_rate": None if evictions is None else _ratio(hits, looked_up),
            "computed_tokens": self._counts["batched_tokens"],
            "wasted_tokens": None if wasted is None else int(wasted),
            "evictions": None if evictions is None else int(evictions),
            "copied_bytes": self._counts["copied_bytes"],
            "swapped_bytes": None if swapped is None else int(swapped),
            "metadata_bytes_peak": self._peaks["metadata_bytes"],
            "map_calls": None if maps is None else int(maps),
            "unmap_calls": None if unmaps is None else int(unmaps),
            "map_s": totals.get("map_s"),
            "allocator_us_per_step": None if host_s is None else _ratio(host_s * 1e6, steps),
            "resident_peak_bytes": None if resident is None else int(resident),
            "steps": steps,
            "makespan_s": self._length_s(totals),
        }


def ttft_s(requests: Columns) -> np.ndarray:
    """[finished] seconds from arrival to the first output token."""
    return (requests["first_token_s"] - requests["arrival_s"])[_finished(requests)]


def e2e_s(requests: Columns) -> np.ndarray:
    """[finished] seconds from arrival to the end."""
    return (requests["finish_s"] - requests["arrival_s"])[_finished(requests)]


def tpot_s(requests: Columns) -> np.ndarray:
    """[finished with more than one output token] seconds a token after the first."""
    tokens = requests["output_tokens"]
    chosen = _finished(requests) & (tokens > 1)
    decode_s = (requests["finish_s"] - requests["first_token_s"])[chosen]
    return decode_s / (tokens[chosen] - 1)


def normalized_latency_s(requests: Columns) -> np.ndarray:
    """[finished with output] end-to-end seconds a token of output (Orca; PagedAttention 6.1)."""
    tokens = requests["output_tokens"]
    chosen = _finished(requests) & (tokens > 0)
    latency_s = (requests["finish_s"] - requests["arrival_s"])[chosen]
    return latency_s / tokens[chosen]


def longest_gap_s(requests: Columns) -> np.ndarray:
    """[finished in several steps] longest gap between two tokens; none where no file has it."""
    longest_s = requests.get("itl_max_s", np.empty(0))
    return longest_s[~np.isnan(longest_s)]


LATENCIES: dict[str, Callable[[Columns], np.ndarray]] = {
    "ttft": ttft_s,
    "tpot": tpot_s,
    "e2e": e2e_s,
    "normalized_latency": normalized_latency_s,
}


def _finished(requests: Columns) -> np.ndarray:
    return requests["status"] == "finished"


def _statistics(name: str, mean: Value, p50: Value, p90: Value, p99: Value) -> dict[str, Value]:
    return {
        f"{name}_mean_s": mean,
        f"{name}_p50_s": p50,
        f"{name}_p90_s": p90,
        f"{name}_p99_s": p99,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _maybe_ratio(part: int | None, whole: float) -> float | None:
    return None if part is None else _ratio(part, whole)


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def _number(value: Value) -> Value:
    """A plain Python number, or None: JSON has no NaN."""
    if value is None or isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None
