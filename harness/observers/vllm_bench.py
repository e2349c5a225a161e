"""A run in the fields of `vllm bench serve --save-detailed`: option `harness.export=vllm`.

One file an allocator, which scripts that plot that benchmark's results read, and `harness.replay`.
Keys were taken from vLLM's vllm/benchmarks/serve.py at 009e6d4.  Times are seconds of the run's
clock, as a streaming client sees them: one chunk a step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness.engine.observer import StepView
from harness.observers.token_times import TokenTimes
from harness.results.atomic import write_text
from harness.results.slo import SloSpec, good
from workloads.requests import FloatArray
from workloads.spec import WorkloadSpec

BACKEND = "kv-harness"


@dataclass(frozen=True)
class Sent:
    """What the client would have been asked: the model, how requests are sent, and its limits."""

    model: str = ""
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    slo: SloSpec = field(default_factory=SloSpec)


class BenchRecorder:
    """An observer of one variant that writes its file when the run has ended."""

    def __init__(self, allocator: str, requests: int, sent: Sent) -> None:
        self.allocator, self._sent = allocator, sent
        self._tokens = TokenTimes(requests)

    def on_step(self, step: StepView) -> None:
        """See `TokenTimes`."""
        self._tokens.on_step(step)

    def write(self, run_dir: Path) -> bool:
        """Write the requests that have ended; return whether there were any."""
        document = self._document()
        if document is None:
            return False
        name = f"vllm_bench-{self.allocator}.json"
        write_text(run_dir / name, json.dumps(document, allow_nan=False) + "\n")
        return True

    def _document(self) -> dict[str, Any] | None:
        times_s, gaps_s = self._tokens.of_requests(), self._tokens.gaps_of_requests()
        groups = self._tokens.groups
        ended = [groups[i] for i in sorted(groups) if not math.isnan(groups[i].finish_s)]
        if not ended:
            return None
        arrays = {
            "input_lens": [group.prompt_tokens for group in ended],
            "output_lens": [group.output_tokens for group in ended],
            "ttfts": [group.first_token_s - group.arrival_s for group in ended],
            "itls": [gaps_s[group.index].tolist() for group in ended],
            "latencies": [group.finish_s - group.arrival_s for group in ended],
            "start_times": [group.arrival_s for group in ended],
            "generated_texts": [""] * len(ended),
            "errors": [""] * len(ended),
        }
        # A client sees a token when the server has sent it, as late for all of a request.
        seen_s = [
            times_s[group.index] + (group.first_token_s - times_s[group.index][0])
            for group in ended
        ]
        workload = self._sent.workload
        return {
            "date": f"{datetime.now():%Y%m%d-%H%M%S}",
            "endpoint_type": BACKEND,
            "backend": BACKEND,
            "label": self.allocator,
            "model_id": self._sent.model,
            "tokenizer_id": self._sent.model,
            "num_prompts": len(ended),
            "request_rate": _rate(workload),
            "burstiness": workload.burstiness,
            "max_concurrency": workload.concurrency,
            **_totals(arrays, self._sent.slo),
            **arrays,
            **_peaks(arrays, np.concatenate(seen_s)),
            **_statistics(arrays),
        }


def _rate(workload: WorkloadSpec) -> float | str | None:
    """Requests a second; vLLM writes `inf` where the next never waits for its time."""
    if workload.rate is None:
        return "inf" if workload.concurrency is not None else None
    return "inf" if math.isinf(workload.rate) else workload.rate


def _totals(arrays: Mapping[str, Any], slo: SloSpec) -> dict[str, Any]:
    ends_s = np.add(arrays["start_times"], arrays["latencies"])
    duration_s = float(ends_s.max() - min(arrays["start_times"]))
    prompts, outputs = sum(arrays["input_lens"]), sum(arrays["output_lens"])
    n = len(ends_s)

    def rate(amount: int) -> float:
        return amount / duration_s if duration_s > 0 else 0.0

    return {
        "duration": duration_s,
        "completed": n,
        "failed": 0,
        "total_input_tokens": prompts,
        "total_output_tokens": outputs,
        "request_throughput": rate(n),
        "request_goodput": rate(_good(arrays, slo)) if slo.limits else None,
        "output_throughput": rate(outputs),
        "total_token_throughput": rate(prompts + outputs),
    }


def _good(arrays: Mapping[str, Any], slo: SloSpec) -> int:
    """How many requests are within every limit."""
    start_s = np.array(arrays["start_times"])
    columns = {
        "status": np.full(len(start_s), "finished"),
        "arrival_s": start_s,
        "first_token_s": start_s + arrays["ttfts"],
        "finish_s": start_s + arrays["latencies"],
        "output_tokens": np.array(arrays["output_lens"]),
        "itl_max_s": np.array([max(gaps, default=math.nan) for gaps in arrays["itls"]]),
    }
    return int(good(columns, slo).sum())


def _peaks(arrays: Mapping[str, Any], token_times_s: FloatArray) -> dict[str, Any]:
    """Over whole seconds from the first start: most tokens in one, most requests in flight."""
    begin_s = min(arrays["start_times"])
    first = np.floor(np.subtract(arrays["start_times"], begin_s)).astype(np.int64)
    ends_s = np.add(arrays["start_times"], arrays["latencies"]) - begin_s
    last = np.floor(ends_s).astype(np.int64)
    changes = np.zeros(int(last.max()) + 2, dtype=np.int64)
    np.add.at(changes, first, 1)
    np.add.at(changes, last + 1, -1)
    tokens = np.bincount(np.floor(token_times_s - begin_s).astype(np.int64).clip(0))
    return {
        "max_output_tokens_per_s": float(tokens.max()),
        "max_concurrent_requests": int(np.cumsum(changes).max()),
    }


def _statistics(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Mean, median, standard deviation and 99th percentile in ms, of each latency."""
    ttfts, e2es = np.array(arrays["ttfts"]), np.array(arrays["latencies"])
    outputs = np.array(arrays["output_lens"])
    several = outputs > 1
    latencies = {
        "ttft": ttfts,
        "tpot": (e2es - ttfts)[several] / (outputs[several] - 1),
        "itl": np.concatenate([np.empty(0), *map(np.array, arrays["itls"])]),
        "e2el": e2es,
    }
    found = {}
    for name, seconds in latencies.items():
        ms = 1e3 * seconds if len(seconds) else np.zeros(1)
        found[f"mean_{name}_ms"] = float(ms.mean())
        found[f"median_{name}_ms"] = float(np.median(ms))
        found[f"std_{name}_ms"] = float(ms.std())
        found[f"p99_{name}_ms"] = float(np.percentile(ms, 99))
    return found
