"""vLLM's `/metrics`, of V1 and V0: Prometheus text, one scrape or several one behind the other.

https://prometheus.io/docs/instrumenting/exposition_formats/ describes the lines.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.replay.errors import ReplayError
from harness.replay.formats.source import read_text
from harness.results import RunLog

LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
PREEMPTIONS = ("vllm:num_preemptions_total", "vllm:num_preemptions")
QUEUE = "vllm:request_queue_time_seconds"
CACHE = "vllm:cache_config_info"

#: of one labelled series its value in each scrape
Series = dict[str, list[float]]


@dataclass(frozen=True)
class ServerMetrics:
    """What a server says of itself; None where it says nothing.

    kv_usage (shares of the pool), running, waiting: one value a scrape.  preemptions: of the whole
    life of the server, or between the first scrape and the last.  kv_tokens: the pool's size.
    queue_s: mean seconds that a request waited.
    """

    scrapes: int
    kv_usage: list[float] | None
    running: list[float] | None
    waiting: list[float] | None
    preemptions: float | None
    kv_tokens: int | None
    queue_s: float | None


@dataclass(frozen=True)
class Beside:
    """A number of the server beside the simulation's, over the scrapes and over the run."""

    name: str
    unit: str
    server_mean: float
    server_peak: float
    simulated_mean: float
    simulated_peak: float


def read_metrics(path: str | Path) -> ServerMetrics:
    """Read a scrape.  Raises ReplayError, one line, for a file with none of vLLM's metrics."""
    path = Path(path).expanduser()
    found: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    kv_tokens: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.match(line)
        try:
            name, labels, value = match.group(1), match.group(2) or "", float(match.group(3))
        except (AttributeError, ValueError):
            raise ReplayError(
                f"{path}:{number}: not a line of Prometheus text; expected name{{labels}} value"
            ) from None
        found[name][labels].append(value)
        if name == CACHE:
            kv_tokens[labels] = _pool(dict(LABEL.findall(labels)))
    if not any(name.startswith("vllm:") for name in found):
        raise ReplayError(f"{path}: has no metric of vLLM; expected its /metrics")
    gauges = [_over_engines(found, USAGE, np.mean)]
    gauges += [_over_engines(found, (name,), np.sum) for name in (RUNNING, WAITING)]
    queue_n, queue_total = (_grown(found, (f"{QUEUE}_{end}",)) for end in ("count", "sum"))
    return ServerMetrics(
        max((len(gauge) for gauge in gauges if gauge), default=1),
        *gauges,
        preemptions=_grown(found, PREEMPTIONS),
        kv_tokens=sum(kv_tokens.values()) or None,
        queue_s=queue_total / queue_n if queue_n and queue_total is not None else None,
    )


def beside(server: ServerMetrics, log: RunLog) -> list[Beside]:
    """The server's gauges beside the simulated ones, which are means over the time of the run."""
    timeline = log.timeline
    step_s = timeline["time_s"] - timeline["start_s"]
    whole_s = float(step_s.sum() + log.totals.get("gap_s", 0.0)) or 1.0
    held = sum(timeline[f"{part}_bytes"] for part in ("token", "reserved", "internal"))
    rows = []
    for name, unit, values, series in (
        ("KV usage", "%", server.kv_usage, 100 * held / max(1, log.capacity_bytes)),
        ("running", "requests", server.running, timeline["batch"]),
        ("waiting", "requests", server.waiting, timeline["waiting"]),
    ):
        if values is None or not len(series):
            continue
        scale = 100.0 if unit == "%" else 1.0
        mean, peak = scale * float(np.mean(values)), scale * float(np.max(values))
        ours = float((series * step_s).sum()) / whole_s
        rows.append(Beside(name, unit, mean, peak, ours, float(series.max())))
    if server.preemptions is not None:
        theirs, ours = server.preemptions, float(timeline["preemptions"].sum())
        rows.append(Beside("preemptions", "in all", theirs, theirs, ours, ours))
    return rows


def _pool(labels: dict[str, str]) -> int:
    blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    return int(blocks) * int(size) if blocks.isdigit() and size.isdigit() else 0


def _over_engines(
    found: dict[str, Series], names: tuple[str, ...], combine: Callable[[list[float]], float]
) -> list[float] | None:
    """One value a scrape of a gauge that every engine has."""
    series = _finite(found, names)
    if not series:
        return None
    scrapes = min(len(values) for values in series)
    return [float(combine([values[i] for values in series])) for i in range(scrapes)]


def _grown(found: dict[str, Series], names: tuple[str, ...]) -> float | None:
    """By how much a counter grew from the first scrape to the last; with one, what it stands at."""
    series = _finite(found, names)
    if not series:
        return None
    return sum(values[-1] - (values[0] if len(values) > 1 else 0.0) for values in series)


def _finite(found: dict[str, Series], names: tuple[str, ...]) -> list[list[float]]:
    for name in names:
        if name in found:
            kept = [[v for v in values if math.isfinite(v)] for values in found[name].values()]
            return [values for values in kept if values]
    return []
