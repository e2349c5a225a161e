"""What an option does: a line an allocator, its points marked, its name at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.charts.chart import PANEL_IN, Chart, new_figure
from harness.report.charts.theme import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    ROUND_STEPS,
    SMALL_POINTS,
    allocator_colour,
    allocator_dashes,
    short_name,
)
from harness.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_IN = 2.45
_TOP_IN, _BOTTOM_IN, _LEFT_IN = 0.3, 0.46, 0.5
_LEADER = {"arrowstyle": "-", "color": FAINT, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)}
#: room for the names at the ends of the lines
_NAMES_IN = 1.2
_NAME_LINE_IN = 0.145
#: beyond these ratios of the largest to the smallest value a linear axis hides the small ones
_LOG_RATIO, _LOG_RATIO_SWEPT = 30.0, 8.0


@dataclass(frozen=True)
class Line:
    """Points of one allocator; `tips` are what is said of each, `name` stands at the line's end."""

    allocator: str
    name: str
    x: list[float]
    y: list[float]
    tips: list[str]


@dataclass(frozen=True)
class LineAxes:
    """What the axes say. `x_ticks` are the values of a swept option, and used as they are."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[float] | None = None
    from_zero: bool = True
    named: bool = True


def draw(lines: Sequence[Line], what: LineAxes) -> Chart:
    """The lines, named at their ends; log axes are chosen by the values."""
    right_in = _NAMES_IN if what.named else 0.12
    figure = new_figure(
        PANEL_IN,
        HEIGHT_IN,
        left=_LEFT_IN / PANEL_IN,
        right=1 - right_in / PANEL_IN,
        bottom=_BOTTOM_IN / HEIGHT_IN,
        top=1 - _TOP_IN / HEIGHT_IN,
    )
    axes = figure.subplots()
    described = []
    chart = Chart(figure, what.title, "")
    for line in lines:
        (drawn,) = axes.plot(
            line.x,
            line.y,
            color=allocator_colour(line.allocator),
            linestyle=allocator_dashes(line.allocator),
            marker="o",
            markersize=5,
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            clip_on=False,
        )
        chart.tip(drawn, line.tips)
        first, last = ((number(line.y[i]), number(line.x[i])) for i in (0, -1))
        described.append(f"{line.name}: {first[0]} at {first[1]}, {last[0]} at {last[1]}")
    chart.description = f"{what.y_label} by {what.x_label}. {'; '.join(described[:12])}."
    _scale_x(axes, lines, what)
    _scale_y(axes, lines, what)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, which="both")
    axes.set_xlabel(what.x_label, labelpad=2)
    left = -_LEFT_IN / (PANEL_IN - _LEFT_IN - right_in)
    axes.set_title(what.y_label, x=left, pad=9, color=MUTED, weight="normal", fontsize=SMALL_POINTS)
    if what.named:
        _name_ends(axes, lines)
    return chart


def tick_text(value: float, _: object = None) -> str:
    """A value at an axis, in few characters."""
    if value and (abs(value) < 0.001 or abs(value) >= 1e7):
        return f"{value:.0e}"
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _scale_x(axes: Axes, lines: Sequence[Line], what: LineAxes) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    values = [x for line in lines for x in line.x]
    low, high = min(values), max(values)
    log = low > 0 and high / low >= (_LOG_RATIO_SWEPT if what.x_ticks else _LOG_RATIO)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    elif not what.x_ticks:
        axes.set_xlim(0, high * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    axes.xaxis.set_major_formatter(tick_text)
    if what.x_ticks:
        axes.set_xticks(what.x_ticks)
        _thin_labels(axes)


def _thin_labels(axes: Axes) -> None:
    """Labels that would touch the one before them are left out; their ticks stay."""
    per_in = axes.figure.dpi
    texts, free_in = [], float("-inf")
    for value in axes.get_xticks():
        text = tick_text(value)
        at_in = axes.transData.transform((value, axes.get_ylim()[0]))[0] / per_in
        half_in = 0.045 * len(text)
        fits = at_in - half_in > free_in
        texts.append(text if fits else "")
        free_in = at_in + half_in + 0.05 if fits else free_in
    axes.set_xticks(axes.get_xticks(), texts)


def _scale_y(axes: Axes, lines: Sequence[Line], what: LineAxes) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    values = [y for line in lines for y in line.y]
    low, high = min(values), max(values)
    if low > 0 and high / low >= _LOG_RATIO:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high / low < 1000 else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        if what.from_zero or low < 0.5 * high:
            axes.set_ylim(min(0.0, low), high * 1.06 or 1.0)
        else:
            margin = 0.15 * (high - low) or 0.05 * (high or 1.0)
            axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    axes.yaxis.set_major_formatter(tick_text)


def _name_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Names right of the axes, pushed apart where they would overlap, led to by thin lines."""
    box_in = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    ends = [
        axes.figure.dpi_scale_trans.inverted().transform(
            axes.transData.transform((line.x[-1], line.y[-1]))
        )
        for line in lines
    ]
    order = sorted(range(len(lines)), key=lambda index: ends[index][1])
    gap_in = min(_NAME_LINE_IN, box_in.height / max(1, len(lines)))
    places: list[float] = []
    for index in order:
        lowest = places[-1] + gap_in if places else box_in.y0
        places.append(max(ends[index][1], lowest))
    for rank, index in enumerate(order):
        highest = box_in.y1 - gap_in * (len(order) - 1 - rank)
        place_in = min(places[rank], highest)
        line, (x_in, y_in) = lines[index], ends[index]
        near = box_in.x1 - x_in < 0.1 and abs(place_in - y_in) < 0.04
        axes.annotate(
            short_name(line.name, 19),
            (line.x[-1], line.y[-1]),
            xytext=(box_in.x1 + 0.13, place_in),
            textcoords=axes.figure.dpi_scale_trans,
            va="center",
            fontsize=SMALL_POINTS,
            color=INK,
            arrowprops=None if near else _LEADER,
            annotation_clip=False,
        )
