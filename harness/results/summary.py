"""From a variant's log to its metrics. Definitions and symbols are in `docs/metrics.md`."""

from __future__ import annotations

import math

import numpy as np

from harness.results.metrics import METRICS
from harness.results.runlog import CATEGORIES, RunLog

Value = float | int | None


def summarize(log: RunLog) -> dict[str, Value]:
    """Every metric of `METRICS`, in its order: shares as fractions, None where undefined.

    Raises ValueError when the log contradicts itself (see `RunLog.check`).
    """
    log.check()
    values = {
        **_memory(log),
        **_batches(log),
        **_throughput(log),
        **_latencies(log),
        **_costs(log),
    }
    return {metric.name: _number(values[metric.name]) for metric in METRICS}


def run_length_s(log: RunLog) -> float:
    """Return the seconds from time 0 to the end of the last step, on the clock of the run."""
    return float(log.timeline["time_s"][-1]) if log.steps else float(log.totals.get("gap_s", 0.0))


def _memory(log: RunLog) -> dict[str, Value]:
    step_s = _step_s(log)
    saturated_s = step_s * log.timeline["saturated"]
    byte_s = dict(zip(CATEGORIES, (log.category_bytes() * step_s).sum(axis=1), strict=True))
    gap_s = log.totals.get("gap_s", 0.0)
    gap_cached = log.totals.get("gap_cached_byte_s", 0.0)
    byte_s["cached"] += gap_cached
    byte_s["idle"] += gap_s * log.capacity_bytes - gap_cached
    whole = (step_s.sum() + gap_s) * log.capacity_bytes
    saturated_whole = saturated_s.sum() * log.capacity_bytes
    values: dict[str, Value] = {}
    for category in CATEGORIES:
        saturated_byte_s = (log.timeline[f"{category}_bytes"] * saturated_s).sum()
        values[f"{category}_share"] = _ratio(byte_s[category], whole)
        values[f"saturated_{category}_share"] = _ratio(saturated_byte_s, saturated_whole)
    physical = (log.timeline["blocks_in_use"] * step_s).sum()
    logical = (log.timeline["logical_blocks"] * step_s).sum()
    values["sharing_saved"] = _ratio(logical - physical, logical)
    return values


def _batches(log: RunLog) -> dict[str, Value]:
    step_s, batch = _step_s(log), log.timeline["batch"]
    saturated_s = step_s * log.timeline["saturated"]
    return {
        "mean_batch": _ratio((batch * step_s).sum(), step_s.sum() + log.totals.get("gap_s", 0.0)),
        "peak_batch": _peak(batch),
        "saturated_mean_batch": _ratio((batch * saturated_s).sum(), saturated_s.sum()),
    }


def _throughput(log: RunLog) -> dict[str, Value]:
    finished = _finished(log)
    outputs = int((log.requests["output_tokens"] * log.requests["sequences"])[finished].sum())
    prompts = int(log.requests["prompt_tokens"][finished].sum())
    length_s = run_length_s(log)
    return {
        "finished_requests": int(finished.sum()),
        "requests_per_s": _ratio(int(finished.sum()), length_s),
        "output_tokens_per_s": _ratio(outputs, length_s),
        "total_tokens_per_s": _ratio(prompts + outputs, length_s),
    }


def _latencies(log: RunLog) -> dict[str, Value]:
    return {
        **_statistics("ttft", ttft_s(log)),
        **_statistics("tpot", tpot_s(log)),
        **_statistics("e2e", e2e_s(log)),
        "normalized_latency_mean_s": _mean(normalized_latency_s(log)),
    }


def ttft_s(log: RunLog) -> np.ndarray:
    """[finished] seconds from arrival to the first output token."""
    return (log.requests["first_token_s"] - log.requests["arrival_s"])[_finished(log)]


def e2e_s(log: RunLog) -> np.ndarray:
    """[finished] seconds from arrival to the end."""
    return (log.requests["finish_s"] - log.requests["arrival_s"])[_finished(log)]


def tpot_s(log: RunLog) -> np.ndarray:
    """[finished with more than one output token] seconds a token after the first."""
    tokens = log.requests["output_tokens"]
    chosen = _finished(log) & (tokens > 1)
    decode_s = (log.requests["finish_s"] - log.requests["first_token_s"])[chosen]
    return decode_s / (tokens[chosen] - 1)


def normalized_latency_s(log: RunLog) -> np.ndarray:
    """[finished with output] end-to-end seconds a token of output (Orca; PagedAttention 6.1)."""
    tokens = log.requests["output_tokens"]
    chosen = _finished(log) & (tokens > 0)
    latency_s = (log.requests["finish_s"] - log.requests["arrival_s"])[chosen]
    return latency_s / tokens[chosen]


def _costs(log: RunLog) -> dict[str, Value]:
    totals, timeline = log.totals, log.timeline
    host_s = totals.get("allocator_host_s")
    maps, unmaps = totals.get("maps"), totals.get("unmaps")
    hits, looked_up = int(timeline["hit_tokens"].sum()), totals.get("looked_up_tokens", 0.0)
    swapped, hit_bytes = totals.get("swapped_bytes"), totals.get("hit_bytes")
    wasted, evictions = totals.get("wasted_tokens"), totals.get("evictions")
    resident = totals.get("resident_peak_bytes")
    return {
        "preemptions": int(timeline["preemptions"].sum()),
        "hit_tokens": hits,
        "hit_bytes": None if hit_bytes is None else int(hit_bytes),
        "prefix_hit_rate": None if evictions is None else _ratio(hits, looked_up),
        "computed_tokens": int(timeline["batched_tokens"].sum()),
        "wasted_tokens": None if wasted is None else int(wasted),
        "evictions": None if evictions is None else int(evictions),
        "copied_bytes": int(timeline["copied_bytes"].sum()),
        "swapped_bytes": None if swapped is None else int(swapped),
        "metadata_bytes_peak": _peak(timeline["metadata_bytes"]),
        "map_calls": None if maps is None else int(maps),
        "unmap_calls": None if unmaps is None else int(unmaps),
        "map_s": totals.get("map_s"),
        "allocator_us_per_step": None if host_s is None else _ratio(host_s * 1e6, log.steps),
        "resident_peak_bytes": None if resident is None else int(resident),
        "steps": log.steps,
        "makespan_s": run_length_s(log),
    }


def _step_s(log: RunLog) -> np.ndarray:
    return log.timeline["time_s"] - log.timeline["start_s"]


def _finished(log: RunLog) -> np.ndarray:
    return log.requests["status"] == "finished"


def _statistics(name: str, seconds: np.ndarray) -> dict[str, Value]:
    p50, p90, p99 = np.percentile(seconds, (50, 90, 99)) if len(seconds) else (None,) * 3
    return {
        f"{name}_mean_s": _mean(seconds),
        f"{name}_p50_s": p50,
        f"{name}_p90_s": p90,
        f"{name}_p99_s": p99,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _peak(values: np.ndarray) -> int:
    return int(values.max()) if len(values) else 0


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def _number(value: Value) -> Value:
    """A plain Python number, or None: JSON has no NaN."""
    if value is None or isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None
