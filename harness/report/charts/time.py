"""Where the time went: what held each allocator back, and what its steps were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.report.charts.chart import (
    WIDE_IN,
    Chart,
    Variant,
    annotate_failure,
    name_bars,
    new_figure,
)
from harness.report.charts.theme import CATEGORY_COLOURS, INK, on_colour
from harness.results.runlog import LIMITS, PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_IDLE = CATEGORY_COLOURS["idle"]
LIMIT_COLOURS = {
    "memory": "#D55E00",
    "preemption": "#E69F00",
    "sequences": "#0072B2",
    "tokens": "#56B4E9",
    "policy": "#CC79A7",
    "nobody": _IDLE,
}
PART_COLOURS = {
    "linear": "#0072B2",
    "attention": "#56B4E9",
    "all_reduce": "#CC79A7",
    "software": "#D55E00",
    "copies": "#009E73",
    "swaps": "#8C510A",
    "maps": "#E69F00",
    "gap": _IDLE,
}
# metric prefix, colours by the rest of its name, heading
_PANELS = (
    ("limited_by_", LIMIT_COLOURS, "what kept the next request out"),
    ("time_", PART_COLOURS, "what the time was made of"),
)
# What lies between the axes and their key, which has the labels of the ticks in it.
_KEY_IN = 0.4
# A label needs this much of a panel that is an inch wide to stand inside its segment, in percent.
_INSIDE = 30.0
assert set(LIMIT_COLOURS) == set(LIMITS), "a limit has no colour"
assert set(PART_COLOURS) == {*PARTS, "gap"}, "a part has no colour"


def draw(variants: Sequence[Variant]) -> Chart:
    """The chart by itself, with a heading."""
    return bars(variants, WIDE_IN, ("Where the time went", "share of the whole run"))


def told(variants: Sequence[Variant]) -> bool:
    """Whether any of them says what held it back; runs of before it was asked do not."""
    return any(
        variant.row.metrics.get("limited_by_nobody_share") is not None for variant in variants
    )


def bars(variants: Sequence[Variant], width_in: float, words: tuple[str, str] = ("", "")) -> Chart:
    """Two panels of stacked bars, each over the whole run, and a key below each."""
    height_in = 0.95 + 0.36 * max(2, len(variants))
    figure = new_figure(width_in, height_in, *words)
    figure.get_layout_engine().set(wspace=0.06)
    chart = Chart(figure, "Where the time went", "")
    described = []
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (prefix, colours, heading) in zip(panels, _PANELS, strict=True):
        shown = set()
        for place, variant in enumerate(variants):
            if not variant.row.ok:
                if axes is panels[0]:
                    annotate_failure(axes, place, variant.row, round(4.4 * width_in))
                continue
            shares = _shares(variant, prefix, colours)
            _bar(chart, axes, place, shares, colours, 2 * _INSIDE / width_in)
            shown |= set(shares)
            listed = ", ".join(f"{_words(name)} {share:.1f} %" for name, share in shares.items())
            described.append(f"{variant.label}, {heading}: {listed or 'not known'}")
        _finish(axes, heading, {name: c for name, c in colours.items() if name in shown})
    chart.description = "; ".join(described) or "nothing ran"
    name_bars(panels[0], variants)
    return chart


def _shares(variant: Variant, prefix: str, names: Mapping[str, str]) -> dict[str, float]:
    """Percent of the run, of those that have any to be seen; none where the parts are not known."""
    metrics = variant.row.metrics
    values = {name: metrics.get(f"{prefix}{name}_share") for name in names}
    if any(value is None for value in values.values()):
        return {}
    return {name: 100 * value for name, value in values.items() if value >= 0.0005}


def _bar(
    chart: Chart,
    axes: Axes,
    place: int,
    shares: Mapping[str, float],
    colours: Mapping[str, str],
    inside: float,
) -> None:
    left = 0.0
    for name, percent in shares.items():
        colour = colours[name]
        (part,) = axes.barh(place, percent, left=left, height=0.72, color=colour, linewidth=0)
        chart.tip(part, [f"{_words(name)} {percent:.1f} %"])
        if percent >= inside:
            axes.text(
                left + percent / 2,
                place,
                f"{percent:.1f}",
                ha="center",
                va="center_baseline",
                # What follows the page has text that does.
                color=INK if colour == _IDLE else on_colour(colour),
            ).set_in_layout(False)
        left += percent


def _finish(axes: Axes, heading: str, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    # In inches, since a share of the axes is less the fewer bars there are.
    below = ScaledTranslation(0, -_KEY_IN, axes.figure.dpi_scale_trans)
    axes.set_title(heading)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.legend(
        handles=[Patch(color=colour, label=_words(name)) for name, colour in colours.items()],
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + below,
        ncols=4,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.2,
        borderpad=0,
        borderaxespad=0,
    )


def _words(name: str) -> str:
    return name.replace("_", "-")
