"""A chart on the page: it follows the theme, repeats to the byte, and says what it shows."""

import json
import re
from xml.etree import ElementTree

import pytest

from harness.report.charts import latency, lines, memory, throughput, waste
from harness.report.charts.chart import PAGE_IN, Variant
from harness.report.charts.svg import inline_svg, short_path
from harness.report.charts.theme import themed
from harness.results import ResultRow
from harness.results.summary import summarize
from tests.report.runs import EVIL
from tests.results.logs import make_log


def variants(*names):
    logs = [make_log(name, seed=index, requests=60) for index, name in enumerate(names)]
    return [
        Variant(log.allocator, ResultRow(log.allocator, metrics=summarize(log)), log)
        for log in logs
    ]


def all_charts():
    shown = variants("paged", "virtual", EVIL)
    failed = [*shown, Variant("contiguous_max", ResultRow("contiguous_max", "oom", EVIL))]
    axes = lines.LineAxes("Throughput by size", EVIL, "tokens/s", [1.0, 2.0, 64.0])
    swept = [lines.Line(EVIL, EVIL, [1.0, 2.0, 64.0], [3.0, 2.0, 1.0], ["a", "b", EVIL])]
    return {
        "waste": waste.bars(failed, "", PAGE_IN),
        "throughput": throughput.bars(failed, PAGE_IN),
        "memory": memory.panel(shown[0], memory.Scale.of(shown)),
        "latency": latency.panel(shown, latency.LATENCIES[0]),
        "lines": lines.draw(swept, axes),
    }


def drawn():
    with themed():
        return {
            name: inline_svg(chart, serial)
            for serial, (name, chart) in enumerate(all_charts().items())
        }


@pytest.fixture(scope="module")
def svgs():
    return drawn()


def test_charts_repeat_to_the_byte(svgs):
    assert drawn() == svgs


def test_text_has_the_font_of_the_page(svgs):
    for name, svg in svgs.items():
        assert "system-ui" in svg, name
        assert "DejaVu" not in svg, name


def test_charts_are_told_by_title_and_description_and_share_no_id(svgs):
    ids = [found for svg in svgs.values() for found in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in svgs.values():
        assert re.search(
            r'aria-label="[^"]+" aria-describedby="(d\d)"[^>]*><desc id="\1">[^<]+<', svg
        )
        for name in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg):
            assert "".join(name) in ids


def test_no_colour_is_fixed_and_no_style_reaches_out_of_the_chart(svgs):
    for svg in svgs.values():
        assert "<style" not in svg
        assert "<!--" not in svg
        plain = re.sub(r"color-mix\(in oklab,#[0-9A-F]{6},white var\(--mix\)\)", "", svg)
        assert set(re.findall(r"(?:fill|stroke): (#\w+)", plain)) <= {"#1B1F24"}


def test_text_is_text_and_names_stay_within_it(svgs):
    for name, svg in svgs.items():
        texts = ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter("text")]
        assert len(texts) > 5, name
    bars = ElementTree.fromstring(svgs["throughput"])
    names = ["".join(each.itertext()) for each in bars.iter("text")]
    assert any("<scr" in text for text in names)
    assert not list(bars.iter("script"))


def test_parts_and_points_say_their_values(svgs):
    bars = ElementTree.fromstring(svgs["waste"])
    said = [title.text for title in bars.iter("title")]
    assert any(re.fullmatch(r"token \d+\.\d %", text) for text in said)
    points = [
        title.text
        for use in ElementTree.fromstring(svgs["lines"]).iter("use")
        for title in use.iter("title")
    ]
    assert points == ["a", "b", EVIL]


@pytest.mark.parametrize(("name", "along"), [("memory", "x"), ("latency", "y")])
def test_readouts_lie_within_the_axes(svgs, name, along):
    root = ElementTree.fromstring(svgs[name])
    readout = json.loads(root.get("data-readout"))
    assert readout["along"] == along
    low, high = readout["box"]["xy".index(along) :: 2]
    assert all(low <= place <= high for place in readout["at"])
    assert len(readout["at"]) == len(readout["heads"])
    assert {len(values) for values in readout["lines"].values()} == {len(readout["at"])}
    if along == "y":  # the more requests, the further up
        assert readout["at"] == sorted(readout["at"], reverse=True)


def test_paths_are_short():
    path = "M 1.04 2.06 \nL 5 2.0600001 \nL 5 9 \nL 5.01 9.01 \nL 6 8 \nz \n"
    assert short_path(path) == "M1 2.1H5V9L6 8z"
    assert short_path("M 0 0 \nC 1 1 2 2 -0.01 3 \nL 0 4") == "M0 0C1 1 2 2 0 3V4"


def test_all_text_has_one_size(svgs):
    sizes = {size for svg in svgs.values() for size in re.findall(r"font[^;]*?([\d.]+)px", svg)}
    assert sizes == {"9"}
