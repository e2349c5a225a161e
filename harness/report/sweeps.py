"""Lines over a swept option: latency over the offered load, and what every other option does."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.charts.lines import Line, LineAxes
from harness.report.collection import Collection, Run
from harness.report.knob_verdict import is_numeric, is_rate
from harness.report.numbers import Shown, number

_NORMALIZED = "normalized_latency_mean_s"
#: more lines than that cannot be told apart
_MOST_LINES = 12
#: a metric that moves by less, of its largest value, is not drawn
_MOVES = 0.002
_SWEPT = (
    Shown("output_tokens_per_s", "Throughput", "output tokens/s"),
    Shown("saturated_token_share", "Live KV while requests wait", "% of pool", 100.0),
    Shown("token_share", "Live KV", "% of pool", 100.0),
    Shown("mean_batch", "Mean batch", "requests"),
    Shown(_NORMALIZED, "Normalized latency", "ms/token", 1000.0),
    Shown("sharing_saved", "Blocks saved by sharing", "%", 100.0),
    Shown("preemptions", "Preemptions", "requests"),
    Shown("metadata_bytes_peak", "Tables, peak", "KiB", 2.0**-10),
)


def curve_lines(collection: Collection) -> list[tuple[list[Line], LineAxes]]:
    """Latency against the offered rate and against what was served, where a rate was swept."""
    rate = next((name for name in collection.headers if is_rate(name)), None)
    runs = [run for run in collection.runs if run.ok_rows]
    if rate is None or not is_numeric(runs, rate) or len(collection.headers) > 1:
        return []
    runs = sorted(runs, key=lambda run: run.options[rate])
    offered, served = [], []
    for name in dict.fromkeys(row.allocator for run in runs for row in run.ok_rows):
        points = [
            (run.options[rate], row.metrics["requests_per_s"], 1000 * row.metrics[_NORMALIZED])
            for run in runs
            for row in run.ok_rows
            if row.allocator == name and row.metrics.get(_NORMALIZED) is not None
        ]
        if not points:
            continue
        rates, speeds, latencies_ms = (list(column) for column in zip(*points, strict=True))
        tips = [f"{name} at {r:g} requests/s: {number(y)} ms/token" for r, _, y in points]
        offered.append(Line(name, name, rates, latencies_ms, tips))
        served.append(Line(name, name, speeds, latencies_ms, tips))
    ticks = sorted({run.options[rate] for run in runs})
    y_label = "normalized latency, ms/token"
    first = LineAxes("Latency by offered load", "requests/s offered", y_label, ticks)
    second = LineAxes("Latency by throughput", "requests/s served", y_label)
    return [(offered, first), (served, second)] if offered else []


def knob_lines(collection: Collection) -> list[tuple[list[Line], LineAxes]]:
    """For each option that was swept over numbers: what it does to the metrics that move."""
    runs = [run for run in collection.runs if run.ok_rows]
    charts = []
    for option, header in collection.headers.items():
        if is_rate(option) or not is_numeric(runs, option):
            continue
        ticks = sorted({float(run.options[option]) for run in runs})
        for metric in _SWEPT:
            lines = _knob_lines(collection, runs, option, metric)
            values = [y for line in lines for y in line.y]
            if not values or max(values) - min(values) <= _MOVES * abs(max(values, key=abs)):
                continue
            title = f"{metric.title} by {header}"
            what = LineAxes(title, header, metric.unit, ticks, named=len(lines) > 1)
            charts.append((lines, what))
    return charts


def _knob_lines(
    collection: Collection, runs: Sequence[Run], option: str, metric: Shown
) -> list[Line]:
    """A line for each allocator and each combination of the other options."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in runs:
        others = {name: text for name, text in collection.headers.items() if name != option}
        rest = run.label(others)
        for row in run.ok_rows:
            value = row.metrics.get(metric.metric)
            if value is not None:
                at = (float(run.options[option]), metric.scale * value)
                found.setdefault((row.allocator, rest), []).append(at)
    lines = []
    for (allocator, rest), points in list(found.items())[:_MOST_LINES]:
        points.sort()
        name = f"{allocator}, {rest}" if rest else allocator
        tips = [f"{allocator} at {x:g}: {number(y)} {metric.unit}" for x, y in points]
        xs, ys = (list(column) for column in zip(*points, strict=True))
        lines.append(Line(allocator, name, xs, ys, tips))
    return lines
