"""The charts of a page: which ones a collection of runs has, and their drawings as SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from harness.report.charts import latency, memory, throughput, time, waste
from harness.report.charts.chart import HALF_IN, PAGE_IN, Chart, Variant
from harness.report.charts.lines import Line, LineAxes, draw
from harness.report.charts.svg import inline_svg
from harness.report.collection import Collection, Run
from harness.report.memory_map import memory_maps
from harness.report.sweeps import curve_lines, knob_lines
from harness.results.reader import read_logs
from harness.results.runlog import ResultRow, RunLog
from harness.results.writer import REQUESTS, TIMELINE

#: a page of more runs than that shows the large columns of the first ones alone
DETAILED_RUNS = 8
#: and of more than that the bars of the first ones alone
MOST_BAR_CHARTS = 24


@dataclass(frozen=True)
class Panel:
    """A drawing and the words above it."""

    title: str
    svg: str


@dataclass
class Detail:
    """What is drawn of the large columns of one run; `problems`: what could not be, a line each."""

    label: str
    problems: list[str] = field(default_factory=list)
    memory: list[Panel] = field(default_factory=list)
    latency: list[Panel] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)


class Panels:
    """Draws a collection's charts; to be used within `themed`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._serial = count(1)

    def waste(self) -> tuple[str, list[Panel]]:
        """The words for the bars' basis, and bars for each run, or for all where each has one."""
        prefix, basis = waste.share_basis(
            [row for run in self._collection.runs for row in run.rows]
        )
        groups, width_in = self._groups(MOST_BAR_CHARTS)
        return basis, [
            self._panel(label, waste.bars(variants, prefix, width_in)) for label, variants in groups
        ]

    def time(self) -> list[Panel]:
        """Bars for each of the first runs, or for all where each has one; of runs that tell."""
        groups, width_in = self._groups(DETAILED_RUNS)
        return [
            self._panel(label, time.bars(variants, width_in))
            for label, variants in groups
            if time.told(variants)
        ]

    def throughput(self) -> list[Panel]:
        """Bars for each of the first runs, or for all where each has one."""
        groups, width_in = self._groups(DETAILED_RUNS)
        return [
            self._panel(label, throughput.bars(variants, width_in)) for label, variants in groups
        ]

    def details(self) -> list[Detail]:
        """The large columns of the first runs, memory on the same axes where runs are mixed."""
        runs = self._collection.runs[:DETAILED_RUNS]
        drawn = [(run, *self._with_logs(run)) for run in runs]
        mixed = memory.Scale.of([variant for _, variants, _ in drawn for variant in variants])
        details = []
        for run, variants, problems in drawn:
            detail = Detail(run.label(self._collection.headers), problems)
            alone = not self._collection.one_row_each
            scale = memory.Scale.of(variants) if alone else mixed
            detail.memory = [
                self._panel(variant.label, memory.panel(variant, scale))
                for variant in variants
                if variant.log is not None and variant.log.steps
            ]
            if alone:
                drawn_of = (*latency.LATENCIES, latency.LONGEST_GAP)
                charts = [latency.panel(variants, each) for each in drawn_of]
                detail.latency = [self._panel(each.title, each) for each in charts if each]
                detail.maps = memory_maps(run.path)
            details.append(detail)
        return details

    def curves(self) -> list[Panel]:
        """Latency over the load, where a rate was swept."""
        return self._lines(curve_lines(self._collection))

    def knobs(self) -> list[Panel]:
        """What each option does that was swept over numbers."""
        return self._lines(knob_lines(self._collection))

    def _lines(self, charts: list[tuple[list[Line], LineAxes]]) -> list[Panel]:
        return [self._panel(axes.title, draw(lines, axes)) for lines, axes in charts]

    def _panel(self, title: str, chart: Chart) -> Panel:
        return Panel(title, inline_svg(chart, next(self._serial)))

    def _variants(self, run: Run) -> list[Variant]:
        return [Variant(variant_label(self._collection, run, row), row) for row in run.rows]

    def _with_logs(self, run: Run) -> tuple[list[Variant], list[str]]:
        """The variants that ran, with their logs, and what of those is wrong."""
        if not run.ok_rows:
            return [], []
        logs, problems = read_logs(run.path, run.totals)
        variants = []
        for row in run.ok_rows:
            log = logs.get(row.allocator)
            problem = None if log is None else _mismatch(row, log)
            if problem:
                problems.append(problem)
                log = None
            variants.append(Variant(variant_label(self._collection, run, row), row, log))
        return variants, problems

    def _groups(self, most: int) -> tuple[list[tuple[str, list[Variant]]], float]:
        """Variants that one bar chart shows, under a label; and how wide it is."""
        collection = self._collection
        if collection.one_row_each:
            mixed = [variant for run in collection.runs for variant in self._variants(run)]
            return [("", mixed)], PAGE_IN
        runs = collection.runs[:most]
        groups = [(run.label(collection.headers), self._variants(run)) for run in runs]
        return groups, PAGE_IN if collection.single else HALF_IN


def _mismatch(row: ResultRow, log: RunLog) -> str | None:
    """Why the columns cannot be those of the row; None where they can, or where there are none."""
    times_s = log.timeline["time_s"]
    if log.steps and not (
        log.capacity_bytes > 0 and np.isfinite(times_s).all() and 0 < times_s[0] <= times_s[-1]
    ):
        return f"{TIMELINE}: damaged: times or bytes of {row.allocator} that no run can have"
    finished = int((log.requests["status"] == "finished").sum())
    for file, here, metric in (
        (TIMELINE, log.steps, "steps"),
        (REQUESTS, finished, "finished_requests"),
    ):
        summary = row.metrics.get(metric)
        if here and summary is not None and here != summary:
            return (
                f"{file}: {row.allocator} has {here:,} {metric.replace('_', ' ')} there and "
                f"{summary:,} in the summary: it is of another run"
            )
    return None


def variant_label(collection: Collection, run: Run, row: ResultRow) -> str:
    """The allocator, and its run where charts mix those of many runs."""
    if not collection.one_row_each:
        return run.title(row.allocator)
    one = len({row.allocator for run in collection.runs for row in run.rows}) == 1
    label = run.label(collection.headers)
    return label if one else f"{run.title(row.allocator)}, {label}"
