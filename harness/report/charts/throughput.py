"""What the memory bought: requests and output tokens a second, a bar for each allocator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.report.charts.chart import (
    WIDE_IN,
    Chart,
    Variant,
    annotate_failure,
    name_bars,
    new_figure,
)
from harness.report.charts.theme import allocator_colour
from harness.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANELS = (("requests_per_s", "requests/s"), ("output_tokens_per_s", "output tokens/s"))


def draw(variants: Sequence[Variant]) -> Chart:
    """The chart by itself, with a heading."""
    return bars(
        variants, WIDE_IN, ("Throughput", "finished work over the whole run; longer is better")
    )


def bars(variants: Sequence[Variant], width_in: float, words: tuple[str, str] = ("", "")) -> Chart:
    """Two panels of horizontal bars with their values at the end; longer is better."""
    height_in = (0.55 if words[0] else 0.3) + 0.33 * max(2, len(variants))
    figure = new_figure(width_in, height_in, *words)
    figure.get_layout_engine().set(wspace=0.06)
    panels = figure.subplots(1, 2, sharey=True)
    described = []
    for index, (axes, (metric, title)) in enumerate(zip(panels, _PANELS, strict=True)):
        values = {
            place: variant.row.metrics.get(metric) or 0.0
            for place, variant in enumerate(variants)
            if variant.row.ok
        }
        _bars(axes, variants, values)
        axes.set_title(title)
        described += [f"{variants[p].label} {number(v)} {title}" for p, v in values.items()]
        for place, variant in enumerate(variants):
            if index == 0 and not variant.row.ok:
                annotate_failure(axes, place, variant.row, round(4.4 * width_in))
    name_bars(panels[0], variants)
    return Chart(figure, "Throughput", "; ".join(described) or "nothing ran")


def _bars(axes: Axes, variants: Sequence[Variant], values: dict[int, float]) -> None:
    for place, value in values.items():
        colour = allocator_colour(variants[place].row.allocator)
        axes.barh(place, value, height=0.72, color=colour, linewidth=0)
        axes.annotate(
            number(value),
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
        )
    # Room for the value after the longest bar.
    axes.set_xlim(0, 1.2 * (max(values.values(), default=0.0) or 1.0))
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
