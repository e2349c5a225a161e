"""Memory over time: a stacked area an allocator, small multiples on the same axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.report.figures.theme import (
    CATEGORY_COLOURS,
    FAILED,
    MUTED,
    category_key,
    failure_text,
    heading,
    new_figure,
    short_name,
)
from harness.results.runlog import CATEGORIES, Row, RunLog
from harness.results.summary import run_length_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 240
# A run that ends before this share of the axis has room for a label, by columns of panels.
_LABEL_BEFORE = {1: 0.88, 2: 0.76, 3: 0.62}
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


def draw(rows: Sequence[Row], logs: Mapping[str, RunLog]) -> Figure:
    """One panel a row; the axes are shared, so a run that ends earlier is seen to end earlier."""
    from matplotlib.ticker import MaxNLocator

    columns = 1 if len(rows) == 1 else 2 if len(rows) <= 6 else 3
    lines = math.ceil(len(rows) / columns)
    figure = new_figure(9.5, 1.45 + max(2.1, 1.9 * lines))
    heading(figure, "KV memory over time", f"averages over a {BINS}th of the longest run")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    shown = [logs[row.allocator] for row in rows if row.ok and row.allocator in logs]
    end_s = max((run_length_s(log) for log in shown), default=0.0) or 1.0
    most_bytes = max((log.capacity_bytes for log in shown), default=1)
    unit_bytes, unit = next(pair for pair in _UNITS if most_bytes >= pair[0])
    for axes, row in zip(panels, rows, strict=False):
        axes.set_title(short_name(row.allocator, 24), fontsize=10).set_in_layout(False)
        axes.spines[["top", "right"]].set_visible(False)
        if row.ok and row.allocator in logs:
            _area(axes, logs[row.allocator], end_s, unit_bytes, _LABEL_BEFORE[columns])
        else:
            _explain(axes, row)
    panels[0].set_xlim(0, end_s)
    panels[0].set_ylim(0, most_bytes / unit_bytes)
    panels[0].yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 3, 4, 5, 8, 10]))
    panels[columns * (lines - 1)].set_xlabel("time (s)")
    for index, axes in enumerate(panels):
        if index >= len(rows):
            axes.set_visible(False)
        elif index + columns >= len(rows):
            axes.tick_params(labelbottom=True)
        if not shown:
            axes.set(xticks=[], yticks=[])
        elif index % columns == 0:
            axes.set_ylabel(unit)
    category_key(figure)
    return figure


def binned_bytes(log: RunLog, edges_s: np.ndarray) -> np.ndarray:
    """[6, bins] mean bytes of each category between consecutive `edges_s` (all >= 0).

    The integral of the memory is interpolated at the edges and differenced, so the mean over the
    bins is the mean over the run whatever their number; points that are picked would not keep it.
    Gaps hold the cached bytes of `totals`, spread evenly over them. Past the end there is nothing.
    """
    if not log.steps:
        return np.zeros((len(CATEGORIES), len(edges_s) - 1))
    start_s, time_s = log.timeline["start_s"], log.timeline["time_s"]
    waits_s = np.maximum(start_s - np.concatenate(([0.0], time_s[:-1])), 0.0)
    gap_s = waits_s.sum()
    gap_cached = log.totals.get("gap_cached_byte_s", 0.0) / gap_s if gap_s > 0 else 0.0
    gap_bytes = dict.fromkeys(CATEGORIES, 0.0)
    gap_bytes.update(cached=gap_cached, idle=log.capacity_bytes - gap_cached)
    # Knots alternate: end of the gap before a step, end of the step.
    knots_s = np.concatenate(([0.0], np.column_stack((start_s, time_s)).ravel()))
    binned = []
    for category in CATEGORIES:
        in_step = log.timeline[f"{category}_bytes"] * (time_s - start_s)
        pieces = np.column_stack((gap_bytes[category] * waits_s, in_step)).ravel()
        integral = np.concatenate(([0.0], np.cumsum(pieces)))
        binned.append(np.diff(np.interp(edges_s, knots_s, integral)) / np.diff(edges_s))
    return np.stack(binned)


def _area(axes: Axes, log: RunLog, end_s: float, unit_bytes: int, label_before: float) -> None:
    edges_s = np.linspace(0.0, end_s, BINS + 1)
    length_s = run_length_s(log)
    # The run's own end is an edge too, so that its last bin is not thinned by the void after it.
    edges_s = np.unique(np.append(edges_s[edges_s < length_s], length_s))
    if len(edges_s) < 2:
        return
    levels = binned_bytes(log, edges_s) / unit_bytes
    axes.stackplot(
        edges_s,
        np.column_stack((levels, levels[:, -1])),
        colors=[CATEGORY_COLOURS[category] for category in CATEGORIES],
        step="post",
        linewidth=0,
    )
    if length_s < label_before * end_s:
        axes.annotate(
            f"done at {length_s:.3g} s",
            (length_s, 0.5 * log.capacity_bytes / unit_bytes),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=MUTED,
        ).set_in_layout(False)


def _explain(axes: Axes, row: Row) -> None:
    text = "no timeline recorded" if row.ok else failure_text(row, 110)
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text, 32),
        transform=axes.transAxes,
        ha="center",
        va="center",
        style="italic",
        fontsize=9,
        color=MUTED if row.ok else FAILED,
    ).set_in_layout(False)
