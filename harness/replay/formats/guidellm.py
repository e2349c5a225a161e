"""GuideLLM's JSON report, of 0.2 to 0.7: `benchmarks[].requests.{successful,errored,incomplete}`.

Times are Unix seconds.  Until 0.3 a request has `start_time`, `first_token_time` and `end_time`;
later `request_start_time` and `info.timings`.  What was cut off at the end of the run (incomplete)
counts as failed.  `time_per_output_token_ms` is end to end over all tokens there, and
`inter_token_latency_ms` what is TPOT elsewhere: neither is read, both follow from the times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.replay.formats import fields
from harness.replay.formats.source import Source
from harness.replay.records import Records

NAME = "GuideLLM"
NAN = float("nan")


def runs(source: Source) -> list[Any] | None:
    """The benchmarks of a report; None for any other file."""
    documents = source.documents
    if documents is None or len(documents) != 1 or not isinstance(documents[0], dict):
        return None
    benchmarks = documents[0].get("benchmarks")
    return benchmarks if isinstance(benchmarks, list) else None


def read(where: str, run: Any) -> Records:
    """Read one benchmark."""
    run = fields.mapping(where, "a benchmark", run)
    groups = fields.mapping(where, "requests", run.get("requests"))
    rows, failed, error = [], 0, None
    starts: list[float] = []
    for i, request in enumerate(fields.items(where, "successful", groups.get("successful") or [])):
        at = f"{where}: requests.successful[{i}]"
        rows.append(_times(at, fields.mapping(at, "it", request)))
    for kind in ("errored", "incomplete"):
        for request in fields.items(where, kind, groups.get(kind) or []):
            failed += 1
            if isinstance(request, dict):
                starts.append(_start(request))
                error = error or fields.optional_text(_error(request))
            else:
                starts.append(NAN)
    n = len(rows)
    columns = np.array(rows, dtype=np.float64).reshape(n, 5)
    lost: np.ndarray = np.zeros(failed)
    strategy = _strategy(run)
    return Records(
        format=NAME,
        start_s=np.concatenate([columns[:, 0], starts]),
        prompt_tokens=np.concatenate([columns[:, 1], lost]).astype(np.int64),
        output_tokens=np.concatenate([columns[:, 2], lost]).astype(np.int64),
        ttft_s=np.concatenate([columns[:, 3], lost]),
        e2e_s=np.concatenate([columns[:, 4], lost]),
        failed=np.arange(n + failed) >= n,
        error=error,
        rate=fields.optional_rate(strategy.get("rate")),
        concurrency=_concurrency(strategy),
        duration_s=fields.optional_positive(run.get("duration")),
    )


def _times(at: str, request: Mapping[str, Any]) -> tuple[float, int, int, float, float]:
    """Start, prompt and output tokens, time to first token, end to end."""
    start = fields.seconds(at, "request_start_time", _start(request, None))
    end = request.get("request_end_time", request.get("end_time"))
    return (
        start,
        fields.tokens(at, "prompt_tokens", request.get("prompt_tokens")),
        fields.tokens(at, "output_tokens", request.get("output_tokens")),
        _first_token(at, request, start),
        fields.seconds(at, "request_end_time", end) - start,
    )


def _first_token(at: str, request: Mapping[str, Any], start: float) -> float:
    """Seconds to the first token; without streaming nobody saw it."""
    info = request.get("info")
    timings = info.get("timings") if isinstance(info, dict) else None
    if isinstance(timings, dict):
        first = timings.get("first_token_iteration", timings.get("first_iteration"))
    else:
        first = request.get("first_token_time")
    if first is not None:
        return fields.seconds(at, "first_token_iteration", first) - start
    ttft = request.get("time_to_first_token_ms")
    if ttft is None:
        fields.refuse(at, "has no time to first token: was it measured without streaming?")
    return fields.seconds(at, "time_to_first_token_ms", ttft, 1e-3)


def _start(request: Mapping[str, Any], default: float | None = NAN) -> Any:
    start = request.get("request_start_time", request.get("start_time"))
    return (
        default if start is None or (default is not None and not fields.is_number(start)) else start
    )


def _error(request: Mapping[str, Any]) -> object:
    info = request.get("info")
    return request.get("error") or (info.get("error") if isinstance(info, dict) else None)


def _strategy(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """How requests were sent: `config.strategy`, or until 0.3 `args.strategy`."""
    for place in ("config", "args"):
        part = run.get(place)
        strategy = part.get("strategy") if isinstance(part, dict) else None
        if isinstance(strategy, dict):
            return strategy
    return {}


def _concurrency(strategy: Mapping[str, Any]) -> int | None:
    if strategy.get("type_") == "synchronous":
        return 1
    return fields.optional_count(strategy.get("streams", strategy.get("max_concurrency")))
