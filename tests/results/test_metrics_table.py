"""The table of metrics and the page made from it."""

from harness.results.metrics import BY_NAME, METRICS
from harness.results.metrics_page import render_markdown
from tests.places import ROOT


def test_the_page_is_what_the_module_prints():
    page = ROOT / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == render_markdown(), (
        "run `python -m harness.results.metrics_page > docs/metrics.md`"
    )


def test_names_are_unique_and_only_two_are_always_measured():
    assert len(BY_NAME) == len(METRICS)
    measured = [metric.name for metric in METRICS if not metric.deterministic]
    assert measured == ["allocator_us_per_step", "resident_peak_bytes"]


def test_cells_do_not_break_the_table():
    lines = [line for line in render_markdown().splitlines() if line.startswith("| `")]
    assert all("|" not in metric.definition + metric.symbol for metric in METRICS)
    assert len(lines) >= len(METRICS)
