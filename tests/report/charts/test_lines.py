"""Lines over a swept option: a few percent look like a few percent."""

import pytest

from harness.report.charts.lines import Line, LineAxes, draw


@pytest.mark.parametrize("lowest", [970.0, 400.0])
def test_the_axis_begins_at_zero(lowest):
    line = Line("paged", "paged", [8.0, 16.0], [1000.0, lowest], ["a", "b"])
    chart = draw([line], LineAxes("Throughput by size", "size", "tokens/s", [8.0, 16.0]))
    assert chart.figure.axes[0].get_ylim()[0] == 0
