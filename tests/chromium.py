"""The system's Chromium, driven by Playwright: for tests of pages, and for pictures of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
REQUIRED = "KV_HARNESS_REQUIRE_CHROMIUM"
_PATH = next((path for name in NAMES if (path := shutil.which(name))), None)

#: skips where there is no browser, unless the environment requires one
needs_chromium = pytest.mark.skipif(
    _PATH is None and not os.environ.get(REQUIRED),
    reason="chromium is not installed (apt-get install chromium)",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a fresh profile; raises FileNotFoundError where none is installed."""
    if _PATH is None:
        raise FileNotFoundError("no chromium found: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_PATH, args=list(FLAGS))
        yield browser
        browser.close()
