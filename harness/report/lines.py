"""Line charts: distributions, sweeps over a knob, throughput against latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report.figures.theme import allocator_colour, allocator_dashes, short_name
from harness.report.numbers import number
from harness.report.svg import Drawing, Scale, dash_array

WIDTH, HEIGHT = 420.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 20.0, 40.0
#: beyond this ratio of the largest to the smallest value a linear axis hides the small ones
LOG_RATIO = 30.0
#: room for the names at the ends of the lines
LABELS = 112.0
LINE_HEIGHT = 13.0


@dataclass
class Series:
    """One line of an allocator. `tips` name the points, where they are to be marked."""

    allocator: str
    x: list[float]
    y: list[float]
    label: str = ""
    tips: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.label or self.allocator


@dataclass
class Axes:
    """What the axes say. `x_ticks` are used as they are; log axes are chosen by the values."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[float] | None = None
    y_percent: bool = False
    from_zero: bool = True
    step: bool = False
    labelled: bool = True


def line_chart(series: Sequence[Series], axes: Axes) -> str:
    """An SVG of the lines, labelled at their ends. Empty where there is no point at all."""
    series = [line for line in series if line.x]
    if not series:
        return ""
    right = RIGHT + (LABELS if axes.labelled else 0.0)
    x_scale = _x_scale(series, axes, WIDTH - right)
    y_scale = _y_scale(series, axes)
    drawing = Drawing(WIDTH, HEIGHT, axes.title, _description(series, axes))
    _frame(drawing, axes, x_scale, y_scale, WIDTH - right)
    for line in series:
        points = [(x_scale(x), y_scale(y)) for x, y in zip(line.x, line.y, strict=True)]
        drawn = _stairs(points, y_scale(0.0)) if axes.step else points
        colour = allocator_colour(line.allocator)
        drawing.path(drawn, colour, dash_array(allocator_dashes(line.allocator)))
        for (x, y), tip in zip(points, line.tips, strict=False):
            drawing.mark(x, y, colour, tip)
    if axes.labelled:
        _end_labels(drawing, series, x_scale, y_scale)
    return drawing.markup()


def _x_scale(series: Sequence[Series], axes: Axes, end: float) -> Scale:
    values = [x for line in series for x in line.x]
    low, high = min(values), max(values)
    if axes.step:
        # The last percent of a distribution is its tail: the axis ends with it, log or not.
        low = min(line.x[min(1, len(line.x) - 1)] for line in series)
    log = low > 0 and high / low >= (8.0 if axes.x_ticks else LOG_RATIO)
    if not log and not axes.x_ticks:
        low, high = 0.0, high * 1.02
    return Scale(low, high, LEFT + (6 if axes.x_ticks else 0), end, log)


def _y_scale(series: Sequence[Series], axes: Axes) -> Scale:
    start, end = HEIGHT - BOTTOM, TOP
    if axes.y_percent and axes.step:
        return Scale(0.0, 1.0, start, end)
    values = [y for line in series for y in line.y]
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOG_RATIO:
        return Scale(low / 1.3, high * 1.3, start, end, log=True)
    if axes.from_zero or low < 0.5 * high:
        return Scale(min(0.0, low), high * 1.06 or 1.0, start, end)
    margin = 0.15 * (high - low) or 0.05 * (high or 1.0)
    return Scale(low - margin, high + margin, start, end)


def _frame(drawing: Drawing, axes: Axes, x_scale: Scale, y_scale: Scale, end: float) -> None:
    floor = HEIGHT - BOTTOM
    for tick in y_scale.ticks(4):
        drawing.line(LEFT, y_scale(tick), end, y_scale(tick))
        text = f"{100 * tick:g} %" if axes.y_percent else _tick_text(tick)
        drawing.text(LEFT - 6, y_scale(tick) + 4, text, anchor="end")
    drawing.line(LEFT, floor, end, floor, "axis")
    placed = -1e9
    for tick in axes.x_ticks or x_scale.ticks(4):
        x, text = x_scale(tick), _tick_text(tick)
        drawing.line(x, floor, x, floor + 4, "axis")
        if x - placed > 6.5 * len(text) + 6:
            drawing.text(x, floor + 16, text, anchor="middle")
            placed = x
    drawing.text((LEFT + end) / 2, HEIGHT - 6, axes.x_label, "label", "middle")
    drawing.text(2, TOP - 9, axes.y_label, "label")


def _stairs(points: list[tuple[float, float]], floor: float) -> list[tuple[float, float]]:
    stairs = [(points[0][0], floor)]
    for x, y in points:
        stairs += [(x, stairs[-1][1]), (x, y)]
    return stairs


def _end_labels(drawing: Drawing, series: Sequence[Series], x_scale: Scale, y_scale: Scale) -> None:
    """Names at the right ends of the lines, pushed apart where they would overlap."""
    ends = sorted((y_scale(line.y[-1]), index) for index, line in enumerate(series))
    room = HEIGHT - BOTTOM - TOP
    gap = min(LINE_HEIGHT, room / max(1, len(ends)))
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + gap) if places else max(y, TOP))
    overflow = places[-1] - (HEIGHT - BOTTOM)
    if overflow > 0:
        places = [
            min(y, HEIGHT - BOTTOM - gap * (len(places) - 1 - i)) for i, y in enumerate(places)
        ]
    for (y, index), place in zip(ends, places, strict=True):
        line = series[index]
        x = x_scale(line.x[-1])
        if abs(place - y) > 3 or x < WIDTH - RIGHT - LABELS - 8:
            drawing.line(x + 5, y, WIDTH - RIGHT - LABELS + 8, place, "leader")
        drawing.text(WIDTH - RIGHT - LABELS + 11, place + 4, short_name(line.name, 19), "name")


def _tick_text(value: float) -> str:
    if value and (abs(value) < 0.001 or abs(value) >= 1e7):
        return f"{value:.0e}"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _description(series: Sequence[Series], axes: Axes) -> str:
    """What the chart shows, for those who do not see it."""
    parts = []
    for line in series[:12]:
        if axes.step:
            continue
        ends = f"{number(line.y[0])} at {number(line.x[0])}, {number(line.y[-1])} at "
        parts.append(f"{line.name}: {ends}{number(line.x[-1])}")
    names = ", ".join(line.name for line in series[:12])
    return f"{axes.y_label} by {axes.x_label}. {'; '.join(parts) or names}."
