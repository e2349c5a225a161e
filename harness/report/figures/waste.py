"""Where the memory went: one stacked bar an allocator, after Fig. 2 of the PagedAttention paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.report.figures.theme import (
    CATEGORY_COLOURS,
    MUTED,
    annotate_failure,
    category_key,
    heading,
    name_rows,
    new_figure,
    text_colour,
)
from harness.results.runlog import CATEGORIES, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A label needs this much of the bar to stand inside its segment, in percent.
_INSIDE = 5.5


def draw(rows: Sequence[Row]) -> Figure:
    """Bars of the six categories in percent of the pool, every bar over the same kind of time."""
    rows = list(rows)
    prefix, basis = share_basis(rows)
    figure = new_figure(9.5, 1.75 + 0.5 * max(2, len(rows)))
    heading(figure, "Where the KV memory went", f"share of the pool, {basis}")
    axes = figure.subplots()
    for slot, row in enumerate(rows):
        if row.ok:
            _bar(axes, slot, {c: row.metrics.get(f"{prefix}{c}_share") or 0.0 for c in CATEGORIES})
        else:
            annotate_failure(axes, slot, row, 75)
    name_rows(axes, rows)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.spines[["top", "right", "left"]].set_visible(False)
    category_key(figure)
    return figure


def share_basis(rows: Sequence[Row]) -> tuple[str, str]:
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


def _bar(axes: Axes, slot: int, shares: dict[str, float]) -> None:
    left, small = 0.0, []
    for category in CATEGORIES:
        percent, colour = 100 * shares[category], CATEGORY_COLOURS[category]
        axes.barh(slot, percent, left=left, height=0.68, color=colour, linewidth=0)
        if percent >= _INSIDE:
            axes.text(
                left + percent / 2,
                slot,
                f"{percent:.1f}",
                ha="center",
                va="center",
                fontsize=9.5,
                color=text_colour(colour),
            )
        elif percent >= 0.05:
            small.append(f"{category} {percent:.1f}")
        left += percent
    lines = [", ".join(small[i : i + 2]) for i in range(0, len(small), 2)]
    axes.annotate(
        "\n".join(lines),
        (100, slot),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8 if len(lines) < 3 else 7,
        color=MUTED,
        annotation_clip=False,
    )
