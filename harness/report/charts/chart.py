"""What a chart is: a figure, words for those who do not see it, and values at the pointer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.report.charts.theme import (
    CATEGORY_COLOURS,
    FAILED,
    MUTED,
    TEXT_POINTS,
    short_name,
)
from harness.results.atomic import replacing
from harness.results.runlog import CATEGORIES, ResultRow, RunLog

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
WIDE_IN = 9.5
#: widths on the page: of one chart of three in a line, of a bar chart of two, and of one alone
PANEL_IN, HALF_IN, PAGE_IN = 3.95, 6.0, 11.4
#: of a key below the axes: the height of a line
KEY_LINE_IN = 0.165
# What lies between the axes and their key; left edge of a panel's axes, a share of its width.
_KEY_IN, _LEFT = 0.44, 0.125
_TITLE_IN = 0.72


@dataclass(frozen=True)
class Variant:
    """One allocator of one run, as a chart shows it; `log` is None where none was kept."""

    label: str
    row: ResultRow
    log: RunLog | None = None


@dataclass
class Readout:
    """Values that follow the pointer along one axis.

    places: [n] coordinates along that axis, in the data's units; heads: [n] what stands above the
    values; lines: of each name its [n] values. Units are written after the numbers.
    """

    axes: Axes
    along: Literal["x", "y"]
    places: np.ndarray
    heads: np.ndarray
    head_unit: str
    lines: Mapping[str, np.ndarray]
    unit: str


@dataclass
class Chart:
    """A figure, its title and description, and texts that appear on pointing at its parts.

    tips: by the id of a part its texts: one for each marker of a line, or one for the whole part.
    """

    figure: Figure
    title: str
    description: str
    tips: dict[str, list[str]] = field(default_factory=dict)
    readout: Readout | None = None

    def tip(self, part: Artist, texts: Sequence[str]) -> None:
        """Show `texts` at the markers of `part`, in order; or the only text anywhere on it."""
        part.set_gid(f"part{len(self.tips)}")
        self.tips[part.get_gid()] = list(texts)


def new_figure(width_in: float, height_in: float, title: str = "", subtitle: str = "") -> Figure:
    """A figure outside pyplot, so that no display is ever looked for; a title adds its height."""
    from matplotlib.figure import Figure

    height_in += _TITLE_IN if title else 0.0
    figure = Figure((width_in, height_in), layout="constrained")
    if not title:
        return figure
    left, top = 0.08 / width_in, 1 - 0.08 / height_in
    figure.text(left, top, title, fontsize=14, weight="bold", va="top")
    below = 1 - 0.40 / height_in
    figure.text(left, below, subtitle, fontsize=TEXT_POINTS + 1, color=MUTED, va="top")
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - _TITLE_IN / height_in))
    return figure


def new_panel(plot_in: float, above_in: float, key_lines: int) -> Figure:
    """A figure for one of three columns of the page: axes `plot_in` high, and room for a key."""
    from matplotlib.figure import Figure

    below_in = _KEY_IN + (0.08 + KEY_LINE_IN * key_lines if key_lines else 0.0)
    height_in = above_in + plot_in + below_in
    figure = Figure((PANEL_IN, height_in))
    edges = {"bottom": below_in / height_in, "top": 1 - above_in / height_in}
    figure.subplots_adjust(left=_LEFT, right=0.955, **edges)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG at twice the usual resolution, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(DPI)
    figure.set_facecolor("white")
    with replacing(path) as temporary:
        # Not by `savefig`, which draws a figure that is laid out twice.
        FigureCanvasAgg(figure).print_png(temporary)


def name_bars(axes: Axes, variants: Sequence[Variant]) -> None:
    """One horizontal bar a variant, the first on top, labelled with its name."""
    axes.set_yticks(range(len(variants)), [short_name(variant.label) for variant in variants])
    axes.set_ylim(len(variants) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)


def name_y_axis(axes: Axes, text: str) -> None:
    """Write what a panel's y axis shows above it, from the panel's left edge."""
    left = -_LEFT / axes.get_position().width
    axes.set_title(text, x=left, pad=9, color=MUTED, weight="normal", fontsize=TEXT_POINTS)


def key_below(axes: Axes, title: str | None = None) -> None:
    """The labelled lines of the axes, one below the other under the name of the x axis."""
    from matplotlib.transforms import ScaledTranslation

    axes.legend(
        title=title,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -_KEY_IN, axes.figure.dpi_scale_trans),
        alignment="left",
        handlelength=2.6,
        labelspacing=0.35,
        borderpad=0,
        borderaxespad=0,
    )


def shown_categories(rows: Iterable[ResultRow]) -> tuple[str, ...]:
    """Return the memory categories; memory expires only where layers keep different KV."""
    expired = any(row.metrics.get("expired_share") for row in rows if row.ok)
    return CATEGORIES if expired else tuple(c for c in CATEGORIES if c != "expired")


def category_key(figure: Figure, rows: Iterable[ResultRow]) -> None:
    """One line of coloured squares below the axes that names the memory categories."""
    from matplotlib.patches import Patch

    names = shown_categories(rows)
    figure.legend(
        handles=[Patch(color=CATEGORY_COLOURS[name], label=name) for name in names],
        loc="outside lower center",
        ncols=len(names),
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.6,
    )


def annotate_failure(axes: Axes, place: int, row: ResultRow, limit: int) -> None:
    """Write status and reason where the bar of a failed row would be."""
    axes.annotate(
        failure_text(row, limit),
        (0, place),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        style="italic",
        color=FAILED,
        annotation_clip=False,
    ).set_in_layout(False)


def failure_text(row: ResultRow, limit: int) -> str:
    """`status: reason` in one line of at most `limit` characters."""
    text = " ".join(f"{row.status}: {row.reason or 'no reason given'}".split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
