"""One look for every figure: fonts, and colours that mean the same thing everywhere.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. An allocator keeps
its colour whatever else is in the figure, and so does a memory category.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.results.atomic import replacing
from harness.results.runlog import CATEGORIES, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
INK, MUTED, FAINT = "#222222", "#666666", "#E3E3E3"
FAILED = "#B00020"

CATEGORY_COLOURS = {
    "token": "#0072B2",
    "reserved": "#56B4E9",
    "internal": "#D55E00",
    "external": "#E69F00",
    "cached": "#009E73",
    "idle": "#D9D9D9",
}

ALLOCATOR_COLOURS = {
    "contiguous_max": "#D55E00",
    "contiguous_pow2": "#E69F00",
    "contiguous_oracle": "#CC79A7",
    "contiguous_grow": "#8C510A",
    "paged": "#0072B2",
    "virtual": "#009E73",
}
# Hues of Tol's muted scheme, away from those above; a name of a third party hashes to one of them.
_OTHER_COLOURS = ("#332288", "#56B4E9", "#882255", "#44AA99", "#999933", "#5A5A5A", "#AA4499")
_DASHES = {
    "contiguous_max": (0, (6, 2)),
    "contiguous_pow2": (0, (3, 1.5)),
    "contiguous_oracle": (0, (5, 1.5, 1, 1.5)),
    "contiguous_grow": (0, (1, 1.2)),
}
_OTHER_DASHES = ("solid", (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2)))


def allocator_colour(name: str) -> str:
    """The colour of an allocator, `#RRGGBB`: by its name alone, never by its place in a list."""
    return ALLOCATOR_COLOURS.get(name) or _OTHER_COLOURS[_digest(name) % len(_OTHER_COLOURS)]


def allocator_dashes(name: str) -> object:
    """The line style of an allocator, a second way to tell lines apart besides their colour."""
    if name in ALLOCATOR_COLOURS:
        return _DASHES.get(name, "solid")
    return _OTHER_DASHES[_digest(name) // len(_OTHER_COLOURS) % len(_OTHER_DASHES)]


def text_colour(background: str) -> str:
    """Black or white, whichever reads better on `background`."""
    red, green, blue = (int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return INK if luminance > 0.25 else "#FFFFFF"


@contextmanager
def themed() -> Iterator[None]:
    """Apply the look to figures made and saved inside; global settings are put back after."""
    import matplotlib
    import seaborn

    settings = {
        **seaborn.plotting_context("notebook", font_scale=0.9),
        **seaborn.axes_style("ticks"),
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.linewidth": 0.8,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "legend.frameon": False,
        "text.color": INK,
        "text.parse_math": False,  # an allocator may have a dollar sign in its name
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that draws with Agg, outside pyplot, so that no display is ever looked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """A bold title and a line under it that says what is shown, above all axes."""
    width_in, height_in = figure.get_size_inches()
    figure.text(0.08 / width_in, 1 - 0.08 / height_in, title, fontsize=14, weight="bold", va="top")
    figure.text(0.08 / width_in, 1 - 0.40 / height_in, subtitle, fontsize=10, color=MUTED, va="top")
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.72 / height_in))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG at twice the usual resolution, atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def name_rows(axes: Axes, rows: list[Row]) -> None:
    """One horizontal slot a row, first row on top, labelled with the allocator's name."""
    axes.set_yticks(range(len(rows)), [short_name(row.allocator) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)


def category_key(figure: Figure) -> None:
    """One line of coloured squares below the axes that names the memory categories."""
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(color=CATEGORY_COLOURS[name], label=name) for name in CATEGORIES],
        loc="outside lower center",
        ncols=len(CATEGORIES),
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.6,
    )


def annotate_failure(axes: Axes, slot: int, row: Row, limit: int) -> None:
    """Write status and reason in the slot where the bar of a failed row would be."""
    axes.annotate(
        failure_text(row, limit),
        (0, slot),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        style="italic",
        color=FAILED,
        annotation_clip=False,
    ).set_in_layout(False)


def failure_text(row: Row, limit: int) -> str:
    """`status: reason` in one line of at most `limit` characters."""
    text = " ".join(f"{row.status}: {row.reason or 'no reason given'}".split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def short_name(name: str, limit: int = 28) -> str:
    """An allocator's name, cut in the middle when it is too long for a label."""
    if len(name) <= limit:
        return name
    return name[: limit // 2] + "…" + name[-(limit - limit // 2 - 1) :]


def _digest(name: str) -> int:
    # hash() is salted per process; a colour must be the same in every report.
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big")
