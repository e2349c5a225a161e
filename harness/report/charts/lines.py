"""What an option does: a line for each allocator, its points marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.charts.chart import Chart, key_below, name_y_axis, new_panel
from harness.report.charts.theme import (
    PAPER,
    ROUND_STEPS,
    allocator_colour,
    allocator_dashes,
    short_name,
)
from harness.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: beyond these ratios of the largest to the smallest value a linear axis hides the small ones
_LOG_RATIO, _LOG_RATIO_SWEPT = 30.0, 8.0


@dataclass(frozen=True)
class Line:
    """Points of one allocator; `tips` are what is said of each, `name` stands in the key."""

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
    named: bool = True


def draw(lines: Sequence[Line], what: LineAxes) -> Chart:
    """The lines with a key below, from the topmost at its end; log axes are chosen by values."""
    lines = sorted(lines, key=lambda line: -line.y[-1])
    figure = new_panel(2.0, 0.3, len(lines) if what.named else 0)
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
            label=short_name(line.name, 44),
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
    name_y_axis(axes, what.y_label)
    if what.named:
        key_below(axes)
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
        # From zero, so that a few percent look like a few percent.
        axes.set_ylim(min(0.0, low), high * 1.06 or 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    axes.yaxis.set_major_formatter(tick_text)
