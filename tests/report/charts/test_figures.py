"""Figures are drawn for any number of variants, failed ones too, and mean what they show."""

import matplotlib
import pytest
import seaborn
from matplotlib.backends.backend_agg import FigureCanvasAgg

from harness.report.charts import FIGURES, write_figures
from harness.report.charts.chart import PAGE_IN, Variant
from harness.report.charts.theme import (
    ALLOCATOR_COLOURS,
    TEXT_POINTS,
    allocator_colour,
    short_name,
    themed,
)
from harness.report.charts.time import bars
from harness.report.charts.waste import share_basis
from harness.results import ResultRow
from harness.results.runlog import LIMITS, PARTS
from harness.results.summary import summarize
from tests.results.logs import make_log

SIX = [*ALLOCATOR_COLOURS]


def run_of(make, names):
    logs = [make(name, seed=index) for index, name in enumerate(names)]
    return [ResultRow(log.allocator, metrics=summarize(log)) for log in logs], logs


def check_pngs(paths):
    assert [path.stem for path in paths] == list(FIGURES)
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not [path for path in paths[0].parent.iterdir() if path.suffix != ".png"]


@pytest.mark.parametrize("names", [["paged"], SIX], ids=["one", "six"])
def test_figures_of_variants_that_ran(tmp_path, names):
    rows, logs = run_of(make_log, names)
    if len(names) > 1:
        rows.append(ResultRow("mine_$x_$y", "oom", "too small " * 30))
    check_pngs(write_figures(tmp_path, rows, logs))


def test_figures_when_every_variant_failed(tmp_path):
    rows = [ResultRow("paged", "oom", "too small"), ResultRow("virtual", "unsupported", None)]
    check_pngs(write_figures(tmp_path, rows, []))
    assert write_figures(tmp_path / "none", [], []) == []


def test_figures_of_a_run_in_which_nothing_happened(tmp_path):
    rows, logs = run_of(lambda name, seed: make_log(name, steps=0, requests=0), ["paged"])
    check_pngs(write_figures(tmp_path, rows, logs))


def test_figures_repeat_to_the_byte(tmp_path):
    rows, logs = run_of(make_log, ["paged"])
    first = write_figures(tmp_path / "a", rows, logs)
    second = write_figures(tmp_path / "b", rows, logs)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_bars_are_compared_over_one_kind_of_time():
    busy = ResultRow("paged", metrics=summarize(make_log(saturated_probability=1.0)))
    calm = ResultRow("virtual", metrics=summarize(make_log(saturated_probability=0.0)))
    assert share_basis([busy])[0] == "saturated_"
    assert share_basis([busy, ResultRow("x", "oom", "no")])[0] == "saturated_"
    assert share_basis([calm])[0] == ""
    assert share_basis([busy, calm])[0] == ""
    assert "not every" in share_basis([busy, calm])[1]


def test_an_allocator_has_one_colour_and_it_never_changes():
    assert allocator_colour("paged") == "#0072B2"
    assert allocator_colour("somebody_elses") == allocator_colour("somebody_elses")
    assert len({allocator_colour(name) for name in SIX}) == len(SIX)
    assert allocator_colour("somebody_elses") == "#44AA99"
    theirs = {allocator_colour(f"of_a_third_party_{number}") for number in range(100)}
    assert theirs.isdisjoint(ALLOCATOR_COLOURS.values())
    assert len(short_name("x" * 100)) == 28


#: settings of seaborn's style and context for which the theme has values of its own
OWN = {
    "image.cmap", "text.color", "grid.color", "grid.linewidth", "lines.linewidth",
    "font.sans-serif", "legend.fontsize", "axes.linewidth", "axes.edgecolor", "axes.labelcolor",
    "axes.spines.right", "axes.spines.top",
    *(f"{axis}tick.{name}" for axis in "xy" for name in (
        "color", "labelsize", "major.size", "major.width", "minor.size", "minor.width"
    )),
}  # fmt: skip


def test_the_theme_is_seaborns_whatever_the_user_has_set():
    seaborns = {
        **seaborn.plotting_context("notebook", font_scale=TEXT_POINTS / 12),
        **seaborn.axes_style("ticks"),
    }
    with matplotlib.rc_context({"figure.facecolor": "red", "patch.edgecolor": "green"}):
        with themed():
            settings = dict(matplotlib.rcParams)
        assert matplotlib.rcParams["figure.facecolor"] == "red"
    assert seaborns.keys() > OWN
    for name in seaborns.keys() - OWN:
        assert settings[name] == seaborns[name], name


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_key_of_where_the_time_went_covers_no_tick(count):
    limits = {f"limited_by_{name}_share": 1 / len(LIMITS) for name in LIMITS}
    parts = {f"time_{name}_share": 1 / 8 for name in (*PARTS, "gap")}
    rows = [ResultRow(name, metrics={**limits, **parts}) for name in SIX[:count]]
    with themed():
        chart = bars([Variant(row.allocator, row) for row in rows], PAGE_IN)
        canvas = FigureCanvasAgg(chart.figure)
        canvas.draw()
        for axes in chart.figure.axes:
            key = axes.get_legend().get_window_extent()
            ticks = [label.get_window_extent() for label in axes.get_xticklabels()]
            assert all(key.y1 < tick.y0 for tick in ticks)
            assert key.y0 >= 0
