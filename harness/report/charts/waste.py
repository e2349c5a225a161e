"""Where the memory went: one stacked bar an allocator, after Fig. 2 of the PagedAttention paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.report.charts.chart import (
    WIDE_IN,
    Chart,
    Variant,
    annotate_failure,
    category_key,
    name_bars,
    new_figure,
)
from harness.report.charts.theme import CATEGORY_COLOURS, MUTED, text_colour
from harness.results.runlog import CATEGORIES, ResultRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A label needs this much of a wide bar to stand inside its segment, in percent.
_INSIDE = 5.5


def draw(variants: Sequence[Variant]) -> Chart:
    """The chart by itself, with heading and key; every bar is over the same kind of time."""
    prefix, basis = share_basis([variant.row for variant in variants])
    words = ("Where the KV memory went", f"share of the pool, {basis}")
    chart = bars(variants, prefix, WIDE_IN, words)
    category_key(chart.figure, [variant.row for variant in variants])
    return chart


def bars(
    variants: Sequence[Variant],
    prefix: str,
    width_in: float,
    words: tuple[str, str] = ("", ""),
) -> Chart:
    """Bars of the categories in percent of the pool; `prefix` is that of `share_basis`."""
    height_in = (1.03 if words[0] else 0.35) + 0.36 * max(2, len(variants))
    figure = new_figure(width_in, height_in, *words)
    chart = Chart(figure, "Where the KV memory went", "")
    axes = figure.subplots()
    described = []
    for place, variant in enumerate(variants):
        if not variant.row.ok:
            annotate_failure(axes, place, variant.row, round(8 * width_in))
            continue
        metrics = variant.row.metrics
        shares = {c: 100 * (metrics.get(f"{prefix}{c}_share") or 0.0) for c in CATEGORIES}
        _bar(chart, axes, place, shares, _INSIDE * WIDE_IN / width_in)
        listed = (f"{name} {share:.1f} %" for name, share in shares.items() if share >= 0.05)
        described.append(f"{variant.label}: {', '.join(listed)}")
    chart.description = "; ".join(described) or "nothing ran"
    name_bars(axes, variants)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.spines["left"].set_visible(False)
    return chart


def share_basis(rows: Sequence[ResultRow]) -> tuple[str, str]:
    """Prefix of the share metrics to show, and the words for it.

    The saturated part tells most about waste, but bars over different kinds of time cannot be
    compared: it is used only when every allocator that ran has one.
    """
    ran = [row for row in rows if row.ok]
    calm = [r.allocator for r in ran if r.metrics.get("saturated_token_share") is None]
    if ran and not calm:
        return "saturated_", "time-weighted while requests wait for memory"
    basis = "time-weighted over the whole run"
    if not calm or len(calm) == len(ran):
        return "", basis + (" (no request waited for memory)" if calm else "")
    return "", f"{basis} (not every allocator had requests waiting for memory)"


def _bar(chart: Chart, axes: Axes, place: int, shares: dict[str, float], inside: float) -> None:
    left, small = 0.0, []
    for category, percent in shares.items():
        if percent < 0.05:
            continue
        (part,) = axes.barh(
            place, percent, left=left, height=0.72, color=CATEGORY_COLOURS[category], linewidth=0
        )
        chart.tip(part, [f"{category} {percent:.1f} %"])
        if percent >= inside:
            axes.text(
                left + percent / 2,
                place,
                f"{percent:.1f}",
                ha="center",
                va="center_baseline",
                color=text_colour(category),
            ).set_in_layout(False)
        else:
            small.append(f"{category} {percent:.1f}")
        left += percent
    lines = [", ".join(small[i : i + 2]) for i in range(0, len(small), 2)]
    axes.annotate(
        "\n".join(lines),
        (100, place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=MUTED,
        annotation_clip=False,
    )
