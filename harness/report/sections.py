"""What the tables of the page and of the markdown are filled with, ready to be printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.charts.theme import allocator_colour
from harness.report.collection import Collection, Run
from harness.report.numbers import COSTS, MAIN, UNDEFINED, Shown
from harness.results.metrics import METRICS
from harness.results.runlog import ResultRow


@dataclass
class ResultLine:
    """One line of a table: its run's options, its allocator by name, a cell for each metric."""

    options: list[str]
    row: ResultRow
    name: str
    colour: str
    idealised: bool
    first: bool
    cells: list[dict[str, Any]]


def result_lines(collection: Collection, shown: Sequence[Shown]) -> list[ResultLine]:
    """Every row of every run; `best` marks winners among rows that can be compared."""
    entries = [(run, row) for run in collection.runs for row in run.rows]
    rows = [row for _, row in entries]
    best = [metric.best(rows, [id(run) for run, _ in entries]) for metric in shown]
    lines = []
    for index, (run, row) in enumerate(entries):
        cells = [
            {
                "text": metric.text(row.metrics.get(metric.metric)) if row.ok else UNDEFINED,
                "value": row.metrics.get(metric.metric) if row.ok else None,
                "best": index in winners,
            }
            for metric, winners in zip(shown, best, strict=True)
        ]
        options = [str(run.options.get(name, "")) for name in collection.headers]
        lines.append(
            ResultLine(
                options,
                row,
                run.title(row.allocator),
                allocator_colour(row.allocator),
                run.idealised(row.allocator),
                not collection.one_row_each and row is run.rows[0],
                cells,
            )
        )
    return lines


def used(shown: Sequence[Shown], collection: Collection) -> list[Shown]:
    """Those metrics that any row has, and that are not zero everywhere, or may be."""
    rows = [row for run in collection.runs for row in run.ok_rows]

    def says(value: float | int | None, metric: Shown) -> bool:
        return value is not None and (metric.zeros or value != 0)

    return [
        metric for metric in shown if any(says(r.metrics.get(metric.metric), metric) for r in rows)
    ]


def main_columns(collection: Collection) -> list[Shown]:
    return used(MAIN, collection) or list(MAIN[:1])


def cost_columns(collection: Collection) -> list[Shown]:
    return used(COSTS, collection)


def all_metrics(collection: Collection, run: Run) -> dict[str, Any]:
    """Every metric with its definition, and its value in each row of the run."""
    return {
        "label": run.label(collection.headers),
        "allocators": [run.title(row.allocator) for row in run.ok_rows],
        "lines": [
            (metric, [_full_text(row.metrics.get(metric.name)) for row in run.ok_rows])
            for metric in METRICS
        ],
    }


def _full_text(value: float | int | None) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
