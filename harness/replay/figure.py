"""Both sides in a picture: distributions above, latency over the time of the run below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.replay.compared import Side
from harness.replay.output import Replay
from harness.report.charts.chart import new_figure, save
from harness.report.charts.lines import tick_text
from harness.report.charts.theme import INK, MUTED, short_name, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURED, SIMULATED = "#D55E00", "#0072B2"
LATENCIES = (
    ("ttft", "time to first token"),
    ("tpot", "time per output token"),
    ("e2e", "end to end"),
)
PARTS = {"queueing": "#E69F00", "prefill": "#56B4E9", "first token": "#56B4E9", "decode": "#009E73"}
#: beyond this ratio of the 99th to the 1st percentile a linear axis hides the short ones
LOG_RATIO = 30.0


def draw(path: Path, replay: Replay) -> None:
    """Write the picture as PNG."""
    with themed():
        title = "Measured and simulated"
        name = short_name(replay.file, 60)
        words = f"{name}, {len(replay.sides[0].ttft_s)} requests; {replay.simulated_name}"
        figure = new_figure(11.0, 5.6, title, words)
        above, below = figure.subplots(2, 3)
        for axes, (latency, name) in zip(above, LATENCIES, strict=True):
            _distribution(axes, replay.sides, latency, name)
        above[0].legend(loc="lower right")
        for axes, (latency, name) in zip(below[:2], (LATENCIES[0], LATENCIES[2]), strict=True):
            _over_time(axes, replay.sides, latency, name)
        _parts(below[2], replay)
        save(figure, path)


def _sides(sides: tuple[Side, Side]) -> list[tuple[Side, str, str]]:
    return [(sides[0], "measured", MEASURED), (sides[1], "simulated", SIMULATED)]


def _distribution(axes: Axes, sides: tuple[Side, Side], latency: str, name: str) -> None:
    """The share of the requests at or below a latency."""
    import seaborn

    seen = []
    for side, label, colour in _sides(sides):
        values = 1e3 * side.values(latency)
        if len(values):
            seaborn.ecdfplot(x=values, stat="percent", color=colour, label=label, ax=axes)
            seen.append(values)
    if seen:
        low, high = np.percentile(np.concatenate(seen), (1, 99))
        if low > 0 and high / low > LOG_RATIO:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(tick_text)
            axes.xaxis.set_minor_formatter("")
    axes.set_title(name)
    axes.set_xlabel("ms")
    axes.set_ylabel("requests at or below, %")
    axes.set_ylim(0, 102)
    axes.grid(axis="y")


def _over_time(axes: Axes, sides: tuple[Side, Side], latency: str, name: str) -> None:
    """A point a request, at its arrival; without arrivals at its place in the file."""
    import seaborn

    by_place = any(side.arrival_s is None for side in sides)
    for side, _, colour in _sides(sides):
        values = side.values(latency)
        at = np.arange(len(values)) if by_place else side.arrival_s
        seaborn.scatterplot(x=at, y=values, s=9, color=colour, alpha=0.55, linewidth=0, ax=axes)
    axes.set_ylim(0, None)
    axes.set_title(f"{name}, over the run")
    axes.set_xlabel("request" if by_place else "arrival, s")
    axes.set_ylabel("s")
    axes.grid(axis="y")


def _parts(axes: Axes, replay: Replay) -> None:
    """The mean end-to-end latency of both sides, cut into its parts."""
    starts = np.zeros(2)
    for part in replay.parts:
        values = np.array([part.measured_s, part.simulated_s])
        shown = np.maximum(values, 0.0)
        axes.barh((0, 1), shown, left=starts, color=PARTS[part.name], label=part.name, height=0.55)
        starts += shown
    for row, side in enumerate(replay.sides):
        axes.annotate(
            f"{side.e2e_s.mean():.3g} s",
            (starts[row], row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_yticks((0, 1), ("measured", "simulated"))
    axes.set_ylim(1.5, -0.5)
    axes.set_xlim(0, 1.22 * max(float(starts.max()), 1e-9))
    axes.set_title("mean end to end, by part")
    axes.set_xlabel("s")
    axes.tick_params(axis="y", length=0, labelcolor=MUTED)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=len(replay.parts))
