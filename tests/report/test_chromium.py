"""The page in a real browser: no error, no request, tables that sort, both themes, phone width."""

import os

import pytest

from harness.observers.memory_map import MemoryMap, write_maps
from harness.report.browser import Browser, find_chromium
from harness.report.build import write_report
from tests.report.runs import EVIL, sweep, write

REQUIRED = "KV_HARNESS_REQUIRE_CHROMIUM"
pytestmark = pytest.mark.skipif(
    find_chromium() is None and not os.environ.get(REQUIRED),
    reason="chromium is not installed (apt-get install chromium)",
)
SPEEDS = {"contiguous_max": 0.3, "paged": 1.0, EVIL: 0.5, "contiguous_oracle": 0.9}
ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows]"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    import numpy as np

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
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("name", ["run", "knob", "rate"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_console_error_and_no_request(name, scheme, pages, browser):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(pages[name], scheme=scheme)
    # Unfold everything, so that all of it is laid out.
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    browser.screenshot()
    assert browser.errors == []
    fetched = [url for url in browser.requests if not url.startswith("data:")]
    assert fetched == [pages[name].resolve().as_uri()]
    assert pages[name].stat().st_size < 2_000_000


def test_the_table_sorts_by_mouse_and_keyboard(pages, browser):
    browser.open(pages["run"])
    first = "document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells[1]"
    values = f"{ROWS}.map(row => row.cells[1]?.dataset.v ?? '')"
    browser.evaluate(f"{first}.querySelector('button').click()")
    down = [float(v) for v in browser.evaluate(values) if v]
    assert down == sorted(down, reverse=True)
    assert len(down) == 4
    assert browser.evaluate(f"{first}.getAttribute('aria-sort')") == "descending"
    browser.evaluate(f"{first}.querySelector('button').focus()")
    browser.press("Enter", 13)
    up = [float(v) for v in browser.evaluate(values) if v]
    assert up == sorted(down)
    names = f"{ROWS}.map(row => row.cells[0].dataset.v)"
    assert browser.evaluate(names)[-1] == "virtual", "what failed comes last"


def test_both_themes_and_the_button_between_them(pages, browser):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(pages["run"], scheme="light")
    light = browser.evaluate(paper)
    browser.evaluate("document.getElementById('theme').focus()")
    browser.press("Enter", 13)
    assert browser.evaluate(paper) != light
    browser.open(pages["run"], scheme="dark")
    dark = browser.evaluate(paper)
    assert dark != light
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(paper) == light


@pytest.mark.parametrize("name", ["run", "knob", "rate"])
def test_a_phone_does_not_scroll_sideways(name, pages, browser):
    browser.open(pages[name], width=375, height=800, phone=True)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 375


def test_the_slider_of_a_memory_map_draws(pages, browser):
    browser.open(pages["run"])
    browser.evaluate("document.querySelector('figure.map img').decode()")
    browser.evaluate(
        "(() => { const s = document.querySelector('figure.map input'); s.value = 3;"
        " s.dispatchEvent(new Event('input')); })()"
    )
    assert browser.evaluate("document.querySelector('figure.map output').textContent") == "3"
    pixel = "[...document.querySelector('canvas').getContext('2d').getImageData(2, 2, 1, 1).data]"
    assert browser.evaluate(pixel)[3] == 255
