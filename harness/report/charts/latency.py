"""How long requests waited: time to first token, normalized latency, longest gap of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.report.charts.chart import (
    KEY_LINE_IN,
    WIDE_IN,
    Chart,
    Readout,
    Variant,
    failure_text,
    key_below,
    new_figure,
    new_panel,
)
from harness.report.charts.theme import (
    FAILED,
    MUTED,
    allocator_colour,
    allocator_dashes,
    short_name,
)
from harness.report.numbers import number
from harness.results.runlog import Columns
from harness.results.summary import longest_gap_s, normalized_latency_s, ttft_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Latency:
    """One of the latencies that are drawn; `of` gives [finished] values of request columns."""

    title: str
    unit: str
    of: Callable[[Columns], np.ndarray]


LATENCIES = (
    Latency("Time to first token", "s", ttft_s),
    Latency("Normalized latency", "s per output token", normalized_latency_s),
)
#: on the page alone, where the files have it
LONGEST_GAP = Latency("Longest gap between tokens", "s", longest_gap_s)
# More points of a distribution than that are not seen.
_POINTS = 240
# Beyond this ratio of the 99th to the 1st percentile a linear axis hides the short ones.
_LOG_RATIO = 30.0


def draw(variants: Sequence[Variant]) -> Chart:
    """The chart by itself: both distributions over the finished requests, medians in the key."""
    failed = [variant for variant in variants if not variant.row.ok]
    words = ("Latency", "share of the finished requests at or below; further left is better")
    key_in = KEY_LINE_IN * max(1, len(variants) - len(failed)) + 0.3
    figure = new_figure(WIDE_IN, 3.0 + key_in + 0.2 * len(failed), *words)
    for axes, latency in zip(figure.subplots(1, 2, sharey=True), LATENCIES, strict=True):
        _distributions(axes, variants, _values(variants, latency), latency)
        axes.set_title(latency.title)
    if failed:
        lines = [f"{short_name(each.label)}: {failure_text(each.row, 95)}" for each in failed]
        note = "\n" + "\n".join(lines)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=9, style="italic", color=FAILED)
    return Chart(figure, words[0], words[1])


def panel(variants: Sequence[Variant], latency: Latency) -> Chart | None:
    """One distribution for the page; None where no variant has a finished request."""
    values = _values(variants, latency)
    if not values:
        return None
    axes = new_panel(2.0, 0.1, len(values) + 1).subplots()
    _distributions(axes, variants, values, latency)
    medians = (f"{name} {number(float(np.median(v)))} s" for name, v in values.items())
    chart = Chart(axes.figure, latency.title, f"Cumulative; medians: {', '.join(medians)}.")
    shares = np.linspace(0, 1, 101)
    quantiles = {name: np.quantile(v, shares) for name, v in values.items()}
    chart.readout = Readout(axes, "y", shares, 100 * shares, "% at or below", quantiles, "s")
    return chart


def _values(variants: Sequence[Variant], latency: Latency) -> dict[str, np.ndarray]:
    """[finished] sorted values of each variant that has any, by its median."""
    found = {
        variant.label: np.sort(latency.of(variant.log.requests))
        for variant in variants
        if variant.row.ok and variant.log is not None
    }
    by_median = sorted(
        ((name, values) for name, values in found.items() if len(values)),
        key=lambda pair: float(np.median(pair[1])),
    )
    return dict(by_median)


def _distributions(
    axes: Axes, variants: Sequence[Variant], values: dict[str, np.ndarray], latency: Latency
) -> None:
    allocators = {variant.label: variant.row.allocator for variant in variants}
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_ylim(0, 1)
    axes.set_yticks(np.linspace(0, 1, 5), [f"{tick} %" for tick in range(0, 101, 25)])
    axes.set_xlabel(latency.unit, labelpad=2)
    if not values:
        text = "no finished request"
        axes.text(0.5, 0.4, text, transform=axes.transAxes, ha="center", color=MUTED)
        axes.set_xticks([])
        return
    # The key lists the lines from left to right at their middle, with that value.
    for name, ordered in values.items():
        ranks = np.unique(np.linspace(0, len(ordered) - 1, _POINTS).round().astype(np.int64))
        axes.step(
            np.concatenate((ordered[:1], ordered[ranks])),
            np.concatenate(([0.0], (ranks + 1) / len(ordered))),
            where="post",
            color=allocator_colour(allocators[name]),
            linestyle=allocator_dashes(allocators[name]),
            label=f"{short_name(name)}  {number(float(np.median(ordered)), decimals=4)} s",
        )
    low = min(float(np.percentile(each, 1)) for each in values.values())
    high = max(float(np.percentile(each, 99)) for each in values.values())
    if low > 0 and high / low > _LOG_RATIO:
        axes.set_xscale("log")
        axes.set_xlim(left=low / 1.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_xlim(left=0)
    key_below(axes, "median")
