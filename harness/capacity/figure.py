"""Latency over rate, a line for each variant, as in Fig. 12 of the PagedAttention paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.capacity.answer import Row
from harness.capacity.slo import Limits
from harness.report.charts.chart import Chart, new_figure
from harness.report.charts.theme import (
    FAILED,
    MUTED,
    PAPER,
    allocator_colour,
    allocator_dashes,
    short_name,
)
from harness.results.metrics import BY_NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORMALIZED = "normalized_latency_mean_s"
PANELS = 3
#: the width of a figure of one panel; of a line in the key, of one of its letters
LEAST_IN, KEY_IN, LETTER_IN = 7.6, 0.75, 0.075
#: of the second row of an allocator and those after it
MORE_DASHES = ((0, (4, 1, 1, 1, 1, 1)), (0, (2, 1)), (0, (8, 2, 2, 2)))
#: capacities further apart than this are shown on a logarithmic axis
LOG_RATIO = 40.0
#: of an interval, which lies over lines of other allocators
PALE = 0.35
#: how far above the latency at the capacity, or above the limit, an axis goes
HEADROOM = 2.5


def draw(rows: Sequence[Row], limits: Limits, title: str = "", words: str = "") -> Chart:
    """Return the figure: normalized latency first, then the metrics that are limited."""
    held = [row for row in rows if row.rate is not None]
    metrics = [NORMALIZED, *(name for name in limits.at_most if name != NORMALIZED)][:PANELS]
    width_in = max(LEAST_IN, 0.6 + 3.6 * len(metrics))
    figure = new_figure(width_in, 3.6, title, words)
    for axes, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        _panel(axes, held, metric, limits)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    longest_in = KEY_IN + LETTER_IN * max(map(len, labels), default=0)
    ncols = max(1, min(len(labels), int(width_in / longest_in)))
    figure.legend(handles, labels, loc="outside lower left", ncols=ncols)
    said = "; ".join(f"{row.label}: {row.rate.mean:.3g} a second" for row in held)
    return Chart(
        figure, "Latency over rate", f"Latency over the rate of requests. Capacities: {said}."
    )


def _panel(axes: Axes, held: Sequence[Row], metric: str, limits: Limits) -> None:
    per_token = BY_NAME[metric].unit == "s/token" or metric.startswith(("tpot", "itl"))
    scale = 1000.0 if per_token else 1.0
    at_capacity, dashes = [], _dashes(held)
    for row in held:
        points = [
            (seen.rate, scale * seen.metrics[metric], seen.diverges)
            for seen in row.capacity.curve
            if seen.metrics.get(metric) is not None
        ]
        colour, label = colour_of(row), short_name(row.label, 48)
        axes.plot(
            [p[0] for p in points],
            [p[1] for p in points],
            color=colour,
            linestyle=dashes[row.label],
            label=label,
        )
        grown = [p for p in points if p[2]]
        axes.plot(
            [p[0] for p in grown],
            [p[1] for p in grown],
            "o",
            markersize=4,
            color=colour,
            markerfacecolor=PAPER,
        )
        value = row.metrics.get(metric)
        if value is not None:
            at_capacity.append(scale * value)
            axes.plot(row.rate.mean, scale * value, "o", markersize=6, color=colour)
    _scale(axes, held, at_capacity, scale * limits.at_most.get(metric, 0.0))
    _intervals(axes, held, metric, scale)
    name = metric.removesuffix("_s").replace("_", " ")
    for word in ("ttft", "tpot", "itl"):
        name = name.replace(word, word.upper())
    axes.set_title(
        f"{name}, {'ms a token' if metric == NORMALIZED else 'ms' if per_token else 's'}"
    )
    axes.set_xlabel("rate, a second")
    axes.grid(axis="y")


def _intervals(axes: Axes, held: Sequence[Row], metric: str, scale: float) -> None:
    """Draw the interval of each capacity, a pale bar; an arrow where it goes on outside the axis.

    Those of a few seeds may be as wide as the panel.
    """
    least, most = axes.get_xlim()
    for row in held:
        value = row.metrics.get(metric)
        if value is None or row.rate.low is None:
            continue
        colour, ends = colour_of(row), (row.rate.low, row.rate.high)
        inside = [min(max(end, least), most) for end in ends]
        axes.plot(
            inside,
            [scale * value] * 2,
            color=colour,
            linewidth=3,
            alpha=PALE,
            solid_capstyle="butt",
            zorder=1,
        )
        for end, shown, arrow in zip(ends, inside, "<>", strict=True):
            axes.plot(
                shown,
                scale * value,
                marker="|" if end == shown else arrow,
                markersize=5,
                color=colour,
                clip_on=end == shown,
            )


def _scale(axes: Axes, held: Sequence[Row], values: Sequence[float], limit: float) -> None:
    from harness.report.charts.lines import tick_text

    top = HEADROOM * (limit or max(values, default=1.0))
    axes.set_ylim(0, top)
    rates = [row.rate.mean for row in held]
    if rates and max(rates) / min(rates) > LOG_RATIO:
        axes.set_xscale("log")
        axes.set_xlim(0.1 * min(rates), 1.25 * max(rates))
    else:
        axes.set_xlim(0, 1.22 * max(rates, default=1.0))
    axes.xaxis.set_major_formatter(tick_text)
    if limit:
        axes.axhline(limit, color=FAILED, linewidth=1, linestyle="dotted")
        axes.annotate(
            "limit",
            (0, limit),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color=MUTED,
        )


def colour_of(row: Row) -> str:
    """Return the colour of a row, `#RRGGBB`: that of its allocator."""
    return allocator_colour(row.capacity.variant.allocator)


def _dashes(rows: Sequence[Row]) -> dict[str, object]:
    """Return the line style of each row by its label: rows of one allocator differ in it alone."""
    found: dict[str, object] = {}
    seen: list[str] = []
    for row in rows:
        allocator = row.capacity.variant.allocator
        place = seen.count(allocator)
        own = allocator_dashes(allocator)
        found[row.label] = MORE_DASHES[(place - 1) % len(MORE_DASHES)] if place else own
        seen.append(allocator)
    return found
