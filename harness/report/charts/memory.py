"""Memory over time: a stacked area an allocator, small multiples on the same axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from harness.report.charts.chart import (
    WIDE_IN,
    Chart,
    Readout,
    Variant,
    category_key,
    failure_text,
    name_y_axis,
    new_figure,
    new_panel,
)
from harness.report.charts.theme import (
    CATEGORY_COLOURS,
    FAILED,
    MUTED,
    ROUND_STEPS,
    short_name,
)
from harness.report.numbers import number, percent
from harness.results.runlog import CATEGORIES, RunLog
from harness.results.summary import run_length_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 160
# Where the longest run is so many times the shortest, each has an axis of its own.
_SQUEEZED = 3.0
# A run that ends before this share of the axis has room for a label, by columns of panels.
_LABEL_BEFORE = {1: 0.88, 2: 0.76, 3: 0.62}
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


@dataclass(frozen=True)
class Scale:
    """The axes that all panels share: seconds to the right, `unit` of `unit_bytes` upwards.

    shared: whether time is the same in all; if not, each run has an axis as long as it is.
    """

    end_s: float
    most_bytes: int
    unit_bytes: int
    unit: str

    shared: bool

    @classmethod
    def of(cls, variants: Sequence[Variant]) -> Self:
        """The scale that shows each of them whole; time is shared unless that squeezes one."""
        logs = [variant.log for variant in variants if _drawn(variant)]
        lengths_s = [run_length_s(log) for log in logs]
        end_s = max(lengths_s, default=0.0) or 1.0
        shared = end_s <= _SQUEEZED * min(lengths_s, default=end_s)
        most_bytes = max((log.capacity_bytes for log in logs), default=1)
        return cls(end_s, most_bytes, *next(u for u in _UNITS if most_bytes >= u[0]), shared)

    def end_of(self, log: RunLog) -> float:
        """The end of the axis (s) that a run is drawn on."""
        return self.end_s if self.shared else run_length_s(log) or 1.0

    @property
    def time_label(self) -> str:
        return "time (s)" if self.shared else "time (s), each run to its own end"


def draw(variants: Sequence[Variant]) -> Chart:
    """The chart by itself: a panel a variant; a run that ends earlier is seen to end earlier."""
    columns = 1 if len(variants) == 1 else 2 if len(variants) <= 6 else 3
    lines = math.ceil(len(variants) / columns)
    words = ("KV memory over time", f"averages over a {BINS}th of the longest run")
    scale = Scale.of(variants)
    figure = new_figure(WIDE_IN, 0.73 + max(2.1, 1.75 * lines), *words)
    panels = figure.subplots(
        lines, columns, sharex=scale.shared, sharey=True, squeeze=False
    ).ravel()
    for axes, variant in zip(panels, variants, strict=False):
        axes.set_title(short_name(variant.label, 24)).set_in_layout(False)
        _panel(axes, variant, scale, _LABEL_BEFORE[columns])
    shown = any(_drawn(variant) for variant in variants)
    for index, axes in enumerate(panels):
        axes.set_visible(index < len(variants))
        if not shown:
            axes.set(xticks=[], yticks=[])
        elif index % columns == 0:
            axes.set_ylabel(scale.unit)
        if index + columns >= len(variants):
            axes.tick_params(labelbottom=True)
    panels[columns * (lines - 1)].set_xlabel(scale.time_label)
    category_key(figure, [variant.row for variant in variants])
    return Chart(figure, words[0], "")


def panel(variant: Variant, scale: Scale) -> Chart:
    """One panel by itself, for the page."""
    axes = new_panel(1.1, 0.3, 0).subplots()
    name_y_axis(axes, scale.unit)
    axes.set_xlabel(scale.time_label, labelpad=2)
    levels = _panel(axes, variant, scale, _LABEL_BEFORE[3])
    chart = Chart(axes.figure, f"Memory over time: {variant.label}", "no timeline recorded")
    if levels is not None:
        edges_s, category_bytes = levels
        shares = 100 * category_bytes / variant.log.capacity_bytes
        means = np.average(shares, axis=1, weights=np.diff(edges_s))
        listed = (f"{c} {percent(m / 100)}" for c, m in zip(CATEGORIES, means, strict=True) if m)
        chart.description = f"Mean over the run: {', '.join(listed)}."
        middles_s = (edges_s[1:] + edges_s[:-1]) / 2
        # The topmost category comes first, as in the drawing.
        held = [(c, s) for c, s in zip(CATEGORIES, shares, strict=True) if s.any()]
        lines = dict(reversed(held))
        chart.readout = Readout(axes, "x", middles_s, middles_s, "s", lines, "%")
    return chart


def binned_bytes(log: RunLog, edges_s: np.ndarray) -> np.ndarray:
    """[categories, bins] mean bytes of each category between consecutive `edges_s` (all >= 0).

    The integral of the memory is interpolated at the edges and differenced, so the mean over the
    bins is the mean over the run whatever their number; points that are picked would not keep it.
    Gaps hold the cached bytes of `totals`, spread evenly over them. Past the end there is nothing.
    Of a timeline in bins each is spread evenly over its time, with the gaps that lie in it.
    """
    if not log.steps:
        return np.zeros((len(CATEGORIES), len(edges_s) - 1))
    start_s, time_s, busy_s = log.timeline["start_s"], log.timeline["time_s"], log.busy_s
    waits_s = np.maximum(start_s - np.concatenate(([0.0], time_s[:-1])), 0.0)
    inner_s = np.maximum(time_s - start_s - busy_s, 0.0)  # none in a step
    gap_s = waits_s.sum() + inner_s.sum()
    gap_cached = log.totals.get("gap_cached_byte_s", 0.0) / gap_s if gap_s > 0 else 0.0
    gap_bytes = dict.fromkeys(CATEGORIES, 0.0)
    gap_bytes.update(cached=gap_cached, idle=log.capacity_bytes - gap_cached)
    # Knots alternate: end of the gap before a step, end of the step.
    knots_s = np.concatenate(([0.0], np.column_stack((start_s, time_s)).ravel()))
    binned = []
    for category in CATEGORIES:
        in_step = log.timeline[f"{category}_bytes"] * busy_s + gap_bytes[category] * inner_s
        pieces = np.column_stack((gap_bytes[category] * waits_s, in_step)).ravel()
        integral = np.concatenate(([0.0], np.cumsum(pieces)))
        binned.append(np.diff(np.interp(edges_s, knots_s, integral)) / np.diff(edges_s))
    return np.stack(binned)


def _drawn(variant: Variant) -> bool:
    return variant.row.ok and variant.log is not None and variant.log.steps > 0


def _panel(
    axes: Axes, variant: Variant, scale: Scale, label_before: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw a variant; returns the edges (s) and the bytes [categories, bins] between them."""
    from matplotlib.patches import StepPatch
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(0, scale.most_bytes / scale.unit_bytes)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 3, 4, 5, 8, 10]))
    if not _drawn(variant):
        axes.set_xlim(0, scale.end_s)
        _explain(axes, variant)
        return None
    log = variant.log
    length_s, end_s = run_length_s(log), scale.end_of(log)
    axes.set_xlim(0, end_s)
    # The run's own end is an edge too, so that its last bin is not thinned by the void after it.
    edges_s = np.linspace(0.0, end_s, BINS + 1)
    edges_s = np.unique(np.append(edges_s[edges_s < length_s], length_s))
    category_bytes = binned_bytes(log, edges_s)
    floor = np.zeros(len(edges_s) - 1)
    for category, levels in zip(CATEGORIES, category_bytes / scale.unit_bytes, strict=True):
        if levels.any():
            # Added as an artist: `stairs` would work out limits that are set already.
            colour = CATEGORY_COLOURS[category]
            area = StepPatch(floor + levels, edges_s, baseline=floor, color=colour, linewidth=0)
            axes.add_artist(area).set_clip_path(axes.patch)
        floor = floor + levels
    if length_s < label_before * end_s:
        axes.annotate(
            f"done at {number(length_s)} s",
            (length_s, 0.5 * log.capacity_bytes / scale.unit_bytes),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=MUTED,
        ).set_in_layout(False)
    return edges_s, category_bytes


def _explain(axes: Axes, variant: Variant) -> None:
    row = variant.row
    text = "no timeline recorded" if row.ok else failure_text(row, 110)
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text, 32),
        transform=axes.transAxes,
        ha="center",
        va="center",
        style="italic",
        color=MUTED if row.ok else FAILED,
    ).set_in_layout(False)
