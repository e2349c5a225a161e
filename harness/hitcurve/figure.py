"""Hit rate against capacity, a line for each policy."""

from __future__ import annotations

from pathlib import Path

from harness.hitcurve.curve import CurvePoint
from harness.hitcurve.output import name_of
from harness.hitcurve.trace import BlockTrace
from harness.report.charts.chart import new_figure, save
from harness.report.charts.theme import MUTED, themed

COLOURS = {"lru": "#0072B2", "lfu": "#D55E00", "fifo": "#E69F00", "s3fifo": "#009E73"}


def draw(path: Path, points: list[CurvePoint], trace: BlockTrace, source: str) -> None:
    """Write the figure as PNG. The dotted line is the unbounded cache."""
    import seaborn

    with themed():
        figure = new_figure(7.0, 3.9, "Prefix hits against capacity", source)
        axes = figure.subplots()
        bounded = [point for point in points if point.capacity_blocks is not None]
        lines = {name_of(point): point for point in bounded}
        seaborn.lineplot(
            x=[point.capacity_blocks for point in bounded],
            y=[100 * point.hit_rate for point in bounded],
            hue=[name_of(point) for point in bounded],
            style=[name_of(point) for point in bounded],
            palette={name: COLOURS[point.policy] for name, point in lines.items()},
            dashes={name: _dashes(point) for name, point in lines.items()},
            markers=dict.fromkeys(lines, "o"),
            markersize=4.5,
            estimator=None,
            ax=axes,
        )
        most = max(100 * p.hit_rate for p in points if p.capacity_blocks is None)
        axes.axhline(most, color=MUTED, linestyle="dotted", linewidth=1)
        axes.annotate(
            f"unbounded: {most:.1f} %",
            (0, most),
            xycoords=("axes fraction", "data"),
            xytext=(4, -4),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=MUTED,
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda blocks, _: f"{blocks:,.0f}")
        axes.set_ylim(0, most * 1.08 or 1)  # an axis has some height, even if nothing hits
        axes.set_xlabel(f"capacity, blocks of {trace.block_tokens} tokens")
        axes.set_ylabel("prompt blocks that hit, %")
        axes.legend(loc="lower right")
        save(figure, path)


def _dashes(point: CurvePoint) -> str | tuple[float, float]:
    return "" if point.order == "touch" else (3.7, 1.6)
