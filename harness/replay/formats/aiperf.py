"""AIPerf's records, `profile_export.jsonl` of `--export-level records`: a request a line.

Times are nanoseconds; a metric is its value and its unit.  Requests of the warmup are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.replay.formats import fields
from harness.replay.formats.source import Source
from harness.replay.records import Records

NAME = "AIPerf"
UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
SUMMARY = (
    "is AIPerf's summary, without records: run it with --export-level records and give its .jsonl"
)


def runs(source: Source) -> list[Any] | None:
    """All records as one run; None for any other file."""
    documents = source.documents
    if documents is None:
        if source.text.startswith("Metric,avg,"):
            fields.refuse(str(source.path), SUMMARY)
        return None
    if not documents or not all(isinstance(d, dict) for d in documents):
        return None
    if len(documents) == 1 and "aiperf_version" in documents[0]:
        fields.refuse(str(source.path), SUMMARY)
    if all("metadata" in d and "metrics" in d for d in documents) and any(
        isinstance(d["metadata"], dict) and "request_start_ns" in d["metadata"] for d in documents
    ):
        return [documents]
    return None


def read(where: str, run: Any) -> Records:
    """Read all records."""
    starts, prompts, outputs, ttfts, ends, gaps, failed = [], [], [], [], [], [], []
    warm, error = 0, None
    for number, record in enumerate(run, 1):
        at = f"{where}: record {number}"
        metadata = fields.mapping(at, "metadata", record["metadata"])
        if metadata.get("benchmark_phase", "profiling") != "profiling":
            warm += 1
            continue
        starts.append(fields.nanoseconds(at, "request_start_ns", metadata.get("request_start_ns")))
        lost = bool(metadata.get("was_cancelled")) or record.get("error") is not None
        failed.append(lost)
        if lost:
            error = error or _text(record.get("error"))
        metrics = {} if lost else fields.mapping(at, "metrics", record["metrics"])
        prompts.append(0 if lost else _count(at, metrics, "input_sequence_length"))
        outputs.append(
            0 if lost else _count(at, metrics, "output_sequence_length", "output_token_count")
        )
        ttfts.append(0.0 if lost else _time(at, metrics, "time_to_first_token"))
        ends.append(0.0 if lost else _time(at, metrics, "request_latency"))
        gaps.append(_gaps(at, metrics))
    known = all(g is not None or lost for g, lost in zip(gaps, failed, strict=True))
    known &= any(g is not None and len(g) for g in gaps)
    return Records(
        format=NAME,
        start_s=fields.from_first(starts),
        prompt_tokens=np.array(prompts, dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        ttft_s=np.array(ttfts, dtype=np.float64),
        e2e_s=np.array(ends, dtype=np.float64),
        itls_s=[np.empty(0) if g is None else g for g in gaps] if known else None,
        failed=np.array(failed, dtype=bool),
        error=error,
        notes=[f"{warm} requests of the warmup were left out"] if warm else [],
    )


def _metric(at: str, metrics: Mapping[str, Any], *names: str) -> tuple[str, Mapping[str, Any]]:
    for name in names:
        if isinstance(metrics.get(name), dict):
            return name, metrics[name]
    hint = ": was it run without --streaming?" if names[0] == "time_to_first_token" else ""
    return fields.refuse(at, f"has no {names[0]}{hint}")


def _count(at: str, metrics: Mapping[str, Any], *names: str) -> int:
    name, metric = _metric(at, metrics, *names)
    return fields.tokens(at, name, metric.get("value"))


def _time(at: str, metrics: Mapping[str, Any], name: str) -> float:
    _, metric = _metric(at, metrics, name)
    return fields.seconds(at, name, metric.get("value"), _unit(at, name, metric))


def _gaps(at: str, metrics: Mapping[str, Any]) -> np.ndarray | None:
    """The gaps between chunks; a single chunk has none and AIPerf then leaves the metric out."""
    metric = metrics.get("inter_chunk_latency")
    if not isinstance(metric, dict):
        return np.empty(0) if metrics else None
    name = "inter_chunk_latency"
    values = fields.items(at, name, metric.get("value"))
    return fields.second_column(at, name, values) * _unit(at, name, metric)


def _unit(at: str, name: str, metric: Mapping[str, Any]) -> float:
    unit = metric.get("unit")
    if not isinstance(unit, str) or unit not in UNITS_S:
        fields.refuse(
            at, f"{name} is in {fields.shown(unit)}; expected one of {', '.join(UNITS_S)}"
        )
    return UNITS_S[unit]


def _text(error: object) -> str | None:
    if isinstance(error, dict):
        return fields.optional_text(error.get("message") or json.dumps(error))
    return fields.optional_text(error)
