"""One look for every chart: fonts, and colours that mean the same thing everywhere.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. An allocator keeps
its colour whatever else is in the chart, and so does a memory category.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

# No two are equal: on the page each follows the theme, light or dark, in its own way.
INK, MUTED, FAINT, PAPER = "#222222", "#666666", "#E3E3E3", "#FFFFFF"
#: text on a dark and on a light category, and the red of what failed
ON_DARK, ON_LIGHT, FAILED = "#FEFEFE", "#1B1F24", "#B00020"
#: one size in all figures, whatever their width
TEXT_POINTS = 9.0
#: ticks of an axis are multiples of these
ROUND_STEPS = (1, 2, 2.5, 5, 10)

CATEGORY_COLOURS = {
    "token": "#0072B2",
    "reserved": "#56B4E9",
    "internal": "#D55E00",
    "expired": "#CC79A7",
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
    "paged_uniform": "#56B4E9",
    "paged_split": "#332288",
    "jenga": "#882255",
    "virtual": "#009E73",
}
# Hues of Tol's muted scheme, away from those above; a name of a third party hashes to one of them.
_OTHER_COLOURS = ("#DDCC77", "#6699CC", "#CC6677", "#44AA99", "#999933", "#5A5A5A", "#AA4499")
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


def text_colour(category: str) -> str:
    """What reads best on a category's colour; on `idle`, which follows the page, that is ink."""
    if category == "idle":
        return INK
    return on_colour(CATEGORY_COLOURS[category])


def on_colour(background: str) -> str:
    """What reads best on a colour, `#RRGGBB`."""
    red, green, blue = (int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return ON_LIGHT if luminance > 0.25 else ON_DARK


#: first parts of the names of Matplotlib's settings that are looks
_LOOKS = ("axes", "figure", "font", "grid", "legend", "lines", "patch", "text", "xtick", "ytick")
# What seaborn's style `ticks` and context `notebook`, at our size of text, make of Matplotlib's
# defaults where we say nothing else. A run draws with Matplotlib alone: to import seaborn, which
# reads SciPy's statistics, takes longer than all charts of a run. A test holds this to seaborn.
_OF_SEABORN = {
    "axes.axisbelow": True,
    "font.size": TEXT_POINTS,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
}


@contextmanager
def themed() -> Iterator[None]:
    """Apply the look to charts made and saved inside; global settings are put back after."""
    import matplotlib

    settings = {
        # Whatever a matplotlibrc of the user's says, a report looks the same.
        **{k: v for k, v in matplotlib.rcParamsDefault.items() if k.partition(".")[0] in _LOOKS},
        **_OF_SEABORN,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "axes.labelsize": TEXT_POINTS,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": TEXT_POINTS,
        "axes.titleweight": "bold",
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "legend.fontsize": TEXT_POINTS,
        "legend.frameon": False,
        "legend.title_fontsize": TEXT_POINTS,
        "lines.linewidth": 1.8,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "kv-harness",
        "text.color": INK,
        "text.parse_math": False,  # an allocator may have a dollar sign in its name
        **{
            f"{axis}tick.{name}": value
            for axis in "xy"
            for name, value in (
                ("color", MUTED),
                ("labelcolor", INK),
                ("labelsize", TEXT_POINTS),
                ("major.size", 4),
                ("major.width", 0.8),
                ("minor.size", 2),
                ("minor.width", 0.6),
            )
        },
    }
    with matplotlib.rc_context(settings):
        yield


def short_name(name: str, limit: int = 28) -> str:
    """An allocator's name, cut in the middle when it is too long for a label."""
    if len(name) <= limit:
        return name
    return name[: limit // 2] + "…" + name[-(limit - limit // 2 - 1) :]


def _digest(name: str) -> int:
    # hash() is salted per process; a colour must be the same in every report.
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big")
