"""What the memory bought: requests and output tokens a second, a bar an allocator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.report.figures.theme import (
    allocator_colour,
    annotate_failure,
    heading,
    name_rows,
    new_figure,
)
from harness.results.numbers import short_number
from harness.results.runlog import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = (("requests_per_s", "requests/s"), ("output_tokens_per_s", "output tokens/s"))


def draw(rows: Sequence[Row]) -> Figure:
    """Two panels of horizontal bars with their values at the end; longer is better."""
    rows = list(rows)
    figure = new_figure(9.5, 1.4 + 0.45 * max(2, len(rows)))
    heading(figure, "Throughput", "finished work over the whole run; longer is better")
    panels = figure.subplots(1, 2, sharey=True)
    for index, (axes, (metric, title)) in enumerate(zip(panels, _PANELS, strict=True)):
        _bars(axes, rows, metric, explain=index == 0)
        axes.set_title(title)
    name_rows(panels[0], rows)
    return figure


def _bars(axes: Axes, rows: list[Row], metric: str, explain: bool) -> None:
    values = {slot: row.metrics.get(metric) or 0.0 for slot, row in enumerate(rows) if row.ok}
    for slot, value in values.items():
        axes.barh(slot, value, height=0.68, color=allocator_colour(rows[slot].allocator))
        axes.annotate(
            short_number(value),
            (value, slot),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
        )
    if explain:
        for slot, row in enumerate(rows):
            if not row.ok:
                annotate_failure(axes, slot, row, 42)
    # Room for the value after the longest bar.
    axes.set_xlim(0, 1.18 * (max(values.values(), default=0.0) or 1.0))
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
