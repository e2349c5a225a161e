"""The page in a real browser: no error, no request, tables that sort, both themes, phone width."""

import numpy as np
import pytest

from harness.observers.memory_map import MemoryMap, write_maps
from harness.report.build import write_report
from tests.chromium import chromium, needs_chromium
from tests.report.runs import EVIL, sweep, write

pytestmark = needs_chromium
SPEEDS = {"contiguous_max": 0.3, "paged": 1.0, EVIL: 0.5, "contiguous_oracle": 0.9}
ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows]"
PAPER = "getComputedStyle(document.body).backgroundColor"
UNFOLD = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    failed = [("virtual", "oom", EVIL)]
    run = write(root / "run", SPEEDS, failed=failed, workload=EVIL, overrides=["+workload=beam"])
    owner, kind = np.ones((5, 64), np.uint32), np.full((5, 64), 2, np.uint8)
    write_maps(run, {"paged": MemoryMap(0, 6400, owner, kind)})
    size = "allocators.paged.block_size"
    found = {
        "run": run,
        "knob": sweep(root / "knob", size, [8, 16, 64], lambda size: {"paged": 8 / size}),
        "rate": sweep(root / "rate", "workload.rate", [1, 2], lambda r: {"paged": 1, "b": 1 / r}),
    }
    for path in found.values():
        write_report([path], path)
    return {name: path / "report.html" for name, path in found.items()}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(pages, browser):
    """Opens a page by name, with `errors` and `requests` of its own."""
    opened = []

    def open_(name, scheme="light", width=1200, **options):
        page = browser.new_page(
            color_scheme=scheme, viewport={"width": width, "height": 900}, **options
        )
        opened.append(page)
        page.errors, page.requests = [], []
        page.on("console", lambda m: page.errors.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(pages[name].resolve().as_uri())
        return page

    yield open_
    for page in opened:
        page.close()


@pytest.mark.parametrize("name", ["run", "knob", "rate"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_console_error_and_no_request(name, scheme, pages, open_page):
    page = open_page(name, scheme)
    page.evaluate(UNFOLD)  # so that all of it is laid out
    page.screenshot(full_page=True)
    assert page.errors == []
    fetched = [url for url in page.requests if not url.startswith("data:")]
    assert fetched == [pages[name].resolve().as_uri()]
    assert pages[name].stat().st_size < 2_000_000


def test_the_table_sorts_by_mouse_and_keyboard(open_page):
    page = open_page("run")
    heading = page.locator("table.sortable").first.locator("thead th").nth(1)
    values = f"{ROWS}.map(row => row.cells[1]?.dataset.v ?? '')"
    heading.locator("button").click()
    down = [float(v) for v in page.evaluate(values) if v]
    assert down == sorted(down, reverse=True)
    assert len(down) == 4
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").press("Enter")
    up = [float(v) for v in page.evaluate(values) if v]
    assert up == sorted(down)
    names = page.evaluate(f"{ROWS}.map(row => row.cells[0].dataset.v)")
    assert names[-1] == "virtual", "what failed comes last"


def test_both_themes_and_the_button_between_them(open_page):
    page = open_page("run", "light")
    light = page.evaluate(PAPER)
    page.locator("#theme").press("Enter")
    assert page.evaluate(PAPER) != light
    page = open_page("run", "dark")
    assert page.evaluate(PAPER) != light
    page.locator("#theme").click()
    assert page.evaluate(PAPER) == light


def test_the_text_of_charts_follows_the_theme(open_page):
    inks = [
        open_page("run", scheme)
        .locator("svg.chart text", has_text="paged")
        .first.evaluate("each => getComputedStyle(each).fill")
        for scheme in ("light", "dark")
    ]
    assert inks == ["rgb(27, 31, 36)", "rgb(232, 234, 237)"]


def test_values_stand_at_the_pointer(open_page):
    page = open_page("run")
    memory = page.locator("svg[data-readout]").first
    memory.scroll_into_view_if_needed()
    box = memory.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
    said = page.locator(".tip").inner_text().splitlines()
    assert said[0].endswith(" s")
    assert [line.split()[0] for line in said[1:]] == ["idle", "token"]
    shares = [float(line.split()[1]) for line in said[1:]]
    assert sum(shares) == pytest.approx(100, abs=1)
    page.mouse.move(0, 0)
    assert not page.locator(".tip").is_visible()


@pytest.mark.parametrize("name", ["run", "knob", "rate"])
def test_a_phone_does_not_scroll_sideways(name, open_page):
    page = open_page(name, width=375, is_mobile=True)
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_at_600_pixels_wide_tables_scroll_and_commands_wrap(open_page):
    page = open_page("run", width=600)
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= 600
    wider = "each => each.scrollWidth > each.clientWidth + 1"
    assert page.locator(".scroll").first.evaluate(wider)
    assert page.locator("pre").count() > 0
    assert not any(each.evaluate(wider) for each in page.locator("pre").all())


@pytest.mark.parametrize("name", ["run", "knob"])
def test_the_text_of_all_figures_has_one_size(name, open_page):
    page = open_page(name)
    page.evaluate(UNFOLD)
    sizes_px = page.evaluate(
        """[...document.querySelectorAll('svg.chart')].map(chart => parseFloat(
            getComputedStyle(chart.querySelector('text')).fontSize) * chart.getScreenCTM().a)"""
    )
    assert len(sizes_px) > 3
    assert sizes_px == pytest.approx([12.0] * len(sizes_px), abs=0.15)


def test_the_slider_of_a_memory_map_draws(open_page):
    page = open_page("run")
    page.evaluate("document.querySelector('figure.map img').decode()")
    page.locator("figure.map input").fill("3")
    assert page.locator("figure.map output").inner_text() == "3"
    pixel = "[...document.querySelector('canvas').getContext('2d').getImageData(2, 2, 1, 1).data]"
    assert page.evaluate(pixel)[3] == 255
