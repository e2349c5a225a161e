"""The curve as a picture: how much longer attention takes over pages, by their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.measure.contenders import backends
from harness.measure.tables import batch_name
from harness.report.charts.chart import Chart, new_figure, save
from harness.report.charts.theme import MUTED, TEXT_POINTS, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from harness.measure.tables import Record

#: vAttention (ASPLOS 2025, arXiv 2405.04437), in percent: paged prefill of FlashAttention-2 and of
#: FlashInfer over contiguous, at most; of a decode step, the host's block tables, at most (decode
#: kernels are level there).  All in results/published/block_size.csv.
PUBLISHED: Mapping[str, Sequence[tuple[float, str]]] = {
    "decode": ((10.0, "vAttention: tables on the host, at most"),),
    "prefill": (
        (37.0, ""),
        (42.0, "vAttention: FlashAttention-2 and FlashInfer, at most"),
    ),
}
#: of the lines of a panel: what is measured first matters most, and no more are drawn
_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#332288")
_SIZE_IN = (11.4, 4.6)
#: percent that a panel shows at least and at most; bars may go beyond
_LEAST, _MOST = (-15.0, 50.0), (-60.0, 200.0)


def draw(results: Record) -> Chart | None:
    """Return the chart of the record's `results`; None if no back end of ours was timed twice."""
    ours = {backends(kind)[0] for kind in ("cuda", "cpu")} | {"cpu"}
    by_mode: dict[str, dict[str, list[Record]]] = {mode: {} for mode in PUBLISHED}
    for row in results["rows"]:
        if row["status"] == "ok" and "ratio" in row and row["backend"] in ours:
            by_mode[row["mode"]].setdefault(batch_name(row), []).append(row)
    if not any(by_mode.values()):
        return None
    with themed():
        return _chart(results, by_mode)


def write_picture(chart: Chart, path: Path) -> None:
    """Write the chart as a PNG."""
    with themed():
        save(chart.figure, path)


def _chart(results: Record, by_mode: dict[str, dict[str, list[Record]]]) -> Chart:
    below = f"more time than contiguous rows; bars: 95 % intervals of {results['rounds']} rounds"
    title = "Attention over pages"
    figure = new_figure(*_SIZE_IN, title, below)
    described = []
    for axes, (mode, batches) in zip(figure.subplots(1, 2), by_mode.items(), strict=True):
        for colour, (name, rows) in zip(_COLOURS, batches.items(), strict=False):
            described += _line(axes, name, rows, colour)
        shown = list(batches.values())[: len(_COLOURS)]
        values = [100 * (row["ratio"] - 1) for rows in shown for row in rows]
        axes.set_ylim(
            max(_MOST[0], min(_LEAST[0], 1.15 * min(values, default=0.0))),
            min(_MOST[1], max(_LEAST[1], 1.15 * max(values, default=0.0))),
        )
        _frame(axes, mode)
    return Chart(figure, title, f"Percent more than contiguous rows. {' '.join(described)}")


def _line(axes: Axes, name: str, rows: list[Record], colour: str) -> list[str]:
    """Draw one batch: pages by size, and by themselves rows of padded or mapped pages."""
    found = []
    for layout, marker in (("paged", "o"), ("padded", "s"), ("virtual", "^")):
        some = [row for row in rows if row["layout"] == layout]
        if not some:
            continue
        at = [float(row["page_tokens"] or _BEYOND) for row in some]
        middle, low, high = (
            [100 * (row[key] - 1) for row in some] for key in ("ratio", "ratio_low", "ratio_high")
        )
        bars: Any = [
            [m - a for m, a in zip(middle, low, strict=True)],
            [b - m for m, b in zip(middle, high, strict=True)],
        ]
        axes.errorbar(
            at,
            middle,
            yerr=bars,
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="-" if layout == "paged" else "none",
            markerfacecolor=colour if layout == "paged" else "none",
            elinewidth=1.0,
            capsize=2,
            label=name if layout == "paged" else None,
        )
        if layout == "paged":
            ends = (f"{middle[i]:+.1f} % with pages of {at[i]:g}" for i in (0, -1))
            found.append(f"{name}: {', '.join(ends)}.")
    return found


#: where rows of whole virtual pages stand: behind the largest block
_BEYOND = 512


def _frame(axes: Axes, mode: str) -> None:
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    for percent, said in PUBLISHED[mode]:
        axes.axhline(percent, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.annotate(
            said,
            (1.0, percent),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=TEXT_POINTS - 1,
        )
    axes.set_xscale("log", base=2)
    ticks = [1, 16, 32, 64, 128, 256, _BEYOND]
    axes.set_xticks(ticks, [*map(str, ticks[:-1]), "mapped,\nwhole"])
    axes.xaxis.set_minor_locator(_no_ticks())
    axes.set_xlabel("tokens of a page (squares: padded; triangles: mapped by the driver)")
    axes.set_title(f"{mode}, % longer than contiguous")
    axes.grid(axis="y")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.22), fontsize=TEXT_POINTS - 1)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
