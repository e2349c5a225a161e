"""What the page and the markdown are filled with: tables, bars and charts, ready to be printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.areas import memory_chart
from harness.report.columns import Memory, read_latencies, read_memory
from harness.report.figures.theme import allocator_colour
from harness.report.figures.waste import share_basis
from harness.report.lines import Axes, Series, line_chart
from harness.report.load import Collection, Run
from harness.report.numbers import COSTS, MAIN, UNDEFINED, Shown, number, percent
from harness.report.verdict import is_numeric, is_rate
from harness.results.metrics import METRICS
from harness.results.runlog import CATEGORIES, Row

#: a page of more runs than that shows the large columns of the first ones alone
DETAILED_RUNS = 8
_SWEPT = (
    Shown("output_tokens_per_s", "Throughput", "output tokens/s"),
    Shown("saturated_token_share", "Live KV while requests wait", "% of pool", 100.0),
    Shown("token_share", "Live KV", "% of pool", 100.0),
    Shown("mean_batch", "Mean batch", "requests"),
    Shown("normalized_latency_mean_s", "Normalized latency", "ms/token", 1000.0),
    Shown("sharing_saved", "Blocks saved by sharing", "%", 100.0),
    Shown("preemptions", "Preemptions", "requests"),
    Shown("metadata_bytes_peak", "Tables, peak", "KiB", 2.0**-10),
)


@dataclass
class Line:
    """One line of a table: its run's options, its allocator, and a cell for each metric."""

    options: list[str]
    row: Row
    colour: str
    idealised: bool
    first: bool
    cells: list[dict[str, Any]]


def result_lines(collection: Collection, shown: Sequence[Shown]) -> list[Line]:
    """Every row of every run; `best` marks winners among rows that can be compared."""
    entries = [(run, row) for run in collection.runs for row in run.rows]
    groups = [entries] if collection.one_row_each else _by_run(entries)
    lines = []
    for group in groups:
        rows = [row for _, row in group]
        best = [metric.best(rows) for metric in shown]
        for index, (run, row) in enumerate(group):
            cells = [
                {
                    "text": metric.text(row.metrics.get(metric.metric)) if row.ok else UNDEFINED,
                    "value": row.metrics.get(metric.metric) if row.ok else None,
                    "best": index in winners,
                }
                for metric, winners in zip(shown, best, strict=True)
            ]
            options = [str(run.options.get(name, "")) for name in collection.headers]
            colour = allocator_colour(row.allocator)
            lines.append(
                Line(options, row, colour, run.idealised(row.allocator), index == 0, cells)
            )
    return lines


def used(shown: Sequence[Shown], collection: Collection) -> list[Shown]:
    """Those metrics that any row has, and that are not zero everywhere."""
    rows = [row for run in collection.runs for row in run.ok_rows]
    return [metric for metric in shown if any(row.metrics.get(metric.metric) for row in rows)]


def main_columns(collection: Collection) -> list[Shown]:
    return used(MAIN, collection) or list(MAIN[:1])


def cost_columns(collection: Collection) -> list[Shown]:
    return used(COSTS, collection)


def _by_run(entries: list[tuple[Run, Row]]) -> list[list[tuple[Run, Row]]]:
    groups: dict[int, list[tuple[Run, Row]]] = {}
    for run, row in entries:
        groups.setdefault(id(run), []).append((run, row))
    return list(groups.values())


def waste_bars(collection: Collection) -> dict[str, Any]:
    """Stacked bars of the memory categories, one a row, and the words for their basis."""
    rows = [row for run in collection.runs for row in run.rows]
    prefix, basis = share_basis(rows)
    groups: list[dict[str, Any]] = []
    for run in collection.runs:
        bars = []
        for row in run.rows:
            shares = {c: row.metrics.get(f"{prefix}{c}_share") or 0.0 for c in CATEGORIES}
            parts = [
                {"category": c, "width": f"{100 * s:.3f}", "text": percent(s), "large": s >= 0.09}
                for c, s in shares.items()
                if s >= 0.0005
            ]
            label = ", ".join(f"{part['category']} {part['text']}" for part in parts)
            name = bar_name(collection, run, row)
            bars.append({"row": row, "name": name, "parts": parts, "label": label})
        groups.append({"label": run.label(collection.headers), "bars": bars})
    if collection.one_row_each:
        groups = [{"label": "", "bars": [bar for group in groups for bar in group["bars"]]}]
    return {"basis": basis, "groups": groups}


def bar_name(collection: Collection, run: Run, row: Row) -> str:
    """What stands beside a bar: the allocator, and its run where bars of many runs are mixed."""
    if not collection.one_row_each:
        return row.allocator
    one = len({row.allocator for run in collection.runs for row in run.rows}) == 1
    label = run.label(collection.headers)
    return label if one else f"{row.allocator}, {label}"


def throughput_bars(collection: Collection, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Output tokens a second of each row of the runs, relative to the most."""
    rows = [(run, row) for run in runs for row in run.ok_rows]
    values = [row.metrics.get("output_tokens_per_s") or 0.0 for _, row in rows]
    most = max(values, default=0.0) or 1.0
    return [
        {
            "name": bar_name(collection, run, row),
            "colour": allocator_colour(row.allocator),
            "width": f"{100 * value / most:.2f}",
            "text": f"{number(value)} tokens/s",
        }
        for (run, row), value in zip(rows, values, strict=True)
    ]


def memory_panels(collection: Collection, runs: Sequence[Run]) -> list[dict[str, str]]:
    """Memory over time of each row that left a timeline; one time axis for all."""
    drawn: list[tuple[str, Memory]] = []
    for run in runs:
        memories = read_memory(run.path)
        drawn += [
            (bar_name(collection, run, row), memories[row.allocator])
            for row in run.ok_rows
            if row.allocator in memories
        ]
    end_s = max((memory.end_s for _, memory in drawn), default=0.0)
    return [{"name": name, "svg": memory_chart(name, memory, end_s)} for name, memory in drawn]


def latency_charts(run: Run) -> list[dict[str, Any]]:
    """Cumulative distributions of time to first token and of normalized latency, with a key."""
    found = read_latencies(run.path)
    charts = []
    for key, title, unit in (
        ("ttft", "Time to first token", "seconds"),
        ("normalized", "Normalized latency", "seconds per output token"),
    ):
        drawn = {
            row.allocator: found[row.allocator][key]
            for row in run.ok_rows
            if key in found.get(row.allocator, {})
        }
        series = [Series(n, d.seconds.tolist(), d.shares.tolist()) for n, d in drawn.items()]
        axes = Axes(title, unit, "share of requests", y_percent=True, step=True, labelled=False)
        medians = sorted(drawn.items(), key=lambda item: item[1].median_s)
        key_lines = [
            {"name": n, "colour": allocator_colour(n), "text": f"{number(d.median_s)} s"}
            for n, d in medians
        ]
        svg = line_chart(series, axes)
        if svg:
            charts.append({"title": title, "svg": svg, "key": key_lines})
    return charts


def curve_charts(collection: Collection) -> list[dict[str, str]]:
    """Latency against the offered rate and against what was served, where a rate was swept."""
    rate = next((name for name in collection.headers if is_rate(name)), None)
    runs = [run for run in collection.runs if run.ok_rows]
    if rate is None or not is_numeric(runs, rate) or len(collection.headers) > 1:
        return []
    runs = sorted(runs, key=lambda run: run.options[rate])
    offered, served = [], []
    for name in dict.fromkeys(row.allocator for run in runs for row in run.ok_rows):
        points = [
            (run.options[rate], row.metrics["requests_per_s"], row.metrics[_NORMALIZED])
            for run in runs
            for row in run.ok_rows
            if row.allocator == name and row.metrics.get(_NORMALIZED) is not None
        ]
        if not points:
            continue
        rates, speeds, latencies = (list(column) for column in zip(*points, strict=True))
        tips = [f"{name} at {r:g} requests/s: {number(1000 * y)} ms/token" for r, _, y in points]
        milliseconds = [1000 * value for value in latencies]
        offered.append(Series(name, rates, milliseconds, tips=tips))
        served.append(Series(name, speeds, milliseconds, tips=tips))
    ticks = sorted({run.options[rate] for run in runs})
    y_label = "normalized latency, ms/token"
    first = Axes("Latency by offered load", "requests/s offered", y_label, x_ticks=ticks)
    second = Axes("Latency by throughput", "requests/s served", y_label)
    return [
        {"title": axes.title, "svg": line_chart(lines, axes)}
        for lines, axes in ((offered, first), (served, second))
        if lines
    ]


_NORMALIZED = "normalized_latency_mean_s"


def knob_charts(collection: Collection) -> list[dict[str, str]]:
    """For each option that was swept over numbers: what it does to the metrics that move."""
    runs = [run for run in collection.runs if run.ok_rows]
    charts = []
    for option, title in collection.headers.items():
        if is_rate(option) or not is_numeric(runs, option):
            continue
        ticks = sorted({float(run.options[option]) for run in runs})
        for metric in _SWEPT:
            series = _knob_series(collection, runs, option, metric)
            values = [y for line in series for y in line.y]
            if not values or max(values) - min(values) <= 0.002 * abs(max(values, key=abs)):
                continue
            axes = Axes(
                f"{metric.title} by {title}",
                title,
                metric.unit,
                x_ticks=ticks,
                from_zero=False,
                labelled=len(series) > 1,
            )
            charts.append({"title": metric.title, "svg": line_chart(series, axes)})
    return charts


def _knob_series(
    collection: Collection, runs: Sequence[Run], option: str, metric: Shown
) -> list[Series]:
    """A line for each allocator and each combination of the other options."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in runs:
        others = {name: text for name, text in collection.headers.items() if name != option}
        rest = run.label(others)
        for row in run.ok_rows:
            value = row.metrics.get(metric.metric)
            if value is not None:
                at = (float(run.options[option]), metric.scale * value)
                lines.setdefault((row.allocator, rest), []).append(at)
    drawn = []
    for (allocator, rest), points in list(lines.items())[:12]:
        points.sort()
        label = f"{allocator}, {rest}" if rest else ""
        tips = [f"{allocator} at {x:g}: {number(y)} {metric.unit}" for x, y in points]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        drawn.append(Series(allocator, xs, ys, label, tips))
    return drawn


def all_metrics(collection: Collection, run: Run) -> dict[str, Any]:
    """Every metric with its definition, and its value in each row of the run."""
    return {
        "label": run.label(collection.headers),
        "allocators": [row.allocator for row in run.ok_rows],
        "lines": [
            (metric, [_full_text(row.metrics.get(metric.name)) for row in run.ok_rows])
            for metric in METRICS
        ],
    }


def _full_text(value: float | int | None) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
