"""How long requests waited: distributions of time to first token and of normalized latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.report.figures.theme import (
    FAILED,
    FAINT,
    MUTED,
    allocator_colour,
    allocator_dashes,
    failure_text,
    heading,
    new_figure,
    short_name,
)
from harness.results.numbers import short_number
from harness.results.runlog import Row, RunLog
from harness.results.summary import normalized_latency_s, ttft_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = (
    ("time to first token", "s", ttft_s),
    ("normalized latency", "s per output token", normalized_latency_s),
)
# More points than that are not seen on paper and only make the drawing slow.
_POINTS = 1000
# Beyond this ratio of the 99th to the 1st percentile a linear axis hides the short ones.
_LOG_RATIO = 30.0


def draw(rows: Sequence[Row], logs: Mapping[str, RunLog]) -> Figure:
    """Two cumulative distributions over the finished requests, with medians in the key."""
    failed = [row for row in rows if not row.ok]
    shown = [logs[row.allocator] for row in rows if row.ok and row.allocator in logs]
    key_in = 0.235 * max(1, len(shown)) + 0.3
    figure = new_figure(9.5, 3.7 + key_in + 0.24 * len(failed))
    heading(figure, "Latency", "share of the finished requests at or below; further left is better")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, unit, measure) in zip(panels, _PANELS, strict=True):
        _distributions(axes, {log.allocator: measure(log) for log in shown})
        axes.set_title(title)
        axes.set_xlabel(unit)
    panels[0].set_ylim(0, 1)
    panels[0].set_yticks(np.linspace(0, 1, 5), [f"{tick} %" for tick in range(0, 101, 25)])
    _note_failures(figure, failed)
    return figure


def _distributions(axes: Axes, seconds: dict[str, np.ndarray]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    drawn = {name: np.sort(values) for name, values in seconds.items() if len(values)}
    if not drawn:
        axes.text(
            0.5, 0.4, "no finished request", transform=axes.transAxes, ha="center", color=MUTED
        )
        axes.set_xticks([])
        return
    # The key lists the lines from left to right at their middle, with that value.
    for name in sorted(drawn, key=lambda name: float(np.median(drawn[name]))):
        values = drawn[name]
        ranks = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(np.int64))
        axes.step(
            np.concatenate((values[:1], values[ranks])),
            np.concatenate(([0.0], (ranks + 1) / len(values))),
            where="post",
            color=allocator_colour(name),
            linestyle=allocator_dashes(name),
            linewidth=2,
            label=f"{short_name(name)}  {short_number(float(np.median(values)))}",
        )
    low = min(float(np.percentile(values, 1)) for values in drawn.values())
    high = max(float(np.percentile(values, 99)) for values in drawn.values())
    if low > 0 and high / low > _LOG_RATIO:
        axes.set_xscale("log")
        axes.set_xlim(left=low / 1.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_xlim(left=0)
    axes.legend(
        title="median",
        loc="upper left",
        bbox_to_anchor=(0, -0.2),
        alignment="left",
        handlelength=2.6,
        fontsize=9,
        title_fontsize=9,
        borderaxespad=0,
    )


def _note_failures(figure: Figure, failed: Sequence[Row]) -> None:
    if not failed:
        return
    lines = [f"{short_name(row.allocator)}: {failure_text(row, 95)}" for row in failed]
    figure.supxlabel(
        "\n" + "\n".join(lines), x=0.01, ha="left", fontsize=9, style="italic", color=FAILED
    )
