"""Pictures of reports for the documentation: `make gallery`, or `python -m docs.gallery.make`.

Runs the comparisons below, opens their reports in Chromium and writes pictures beside this file,
and the page that shows them with their commands.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from harness.report import REPORT_HTML
from tests.chromium import chromium

FOLDER = Path(__file__).parent
WIDTH, MOST_HEIGHT = 1240, 2300
#: the step at which memory maps are shown
STEP = "90"


@dataclass(frozen=True)
class Picture:
    """`anchor`, if given, is the heading that the picture starts at."""

    name: str
    title: str
    command: tuple[str, ...]
    scheme: str = "light"
    anchor: str = ""
    height: int = MOST_HEIGHT


_BEAM = ("+workload=beam", "workload.num_requests=200", "kv_tokens=9000")
_MAP = ("harness.memory_map=40:240",)
_POOL = ("kv_tokens=15805",)
_BLOCKS = ("+workload=sharegpt", "workload.num_requests=200", "allocator=[paged]", *_POOL)
_SIZES = ("allocators.paged.block_size=8,16,32,64,128,256",)
_RATES = ("+workload=sharegpt", "workload.num_requests=150", "workload.rate=0.5,1,2,4", *_POOL)
_CHATS = ("+workload=conversation", "workload.num_requests=400", *_POOL)
_INDICES = (
    "allocator=[paged]",
    "allocators.paged.prefix_index=hash",
    "+allocators.radix={_target_: allocators.paged.Paged, block_size: 16, prefix_index: radix}",
)
_REAL = (
    "+workload=beam",
    "workload.num_requests=24",
    "executor=model",
    "model=llama-tiny",
    "allocator=[paged,virtual]",
)
PICTURES = (
    Picture("beam", "Beam search, five allocators", (*_BEAM, *_MAP)),
    Picture(
        "memory-map",
        "Who holds which part of the pool, step by step (the same run, dark theme)",
        (*_BEAM, *_MAP),
        "dark",
        "Memory map",
        1300,
    ),
    Picture("block-size", "What the block size does", ("-m", *_BLOCKS, *_SIZES)),
    Picture(
        "prefix-index", "Prefix sharing by hash and by radix tree, on chats", (*_CHATS, *_INDICES)
    ),
    Picture("real", "A model really run, on a CPU", _REAL, "dark"),
    Picture("rate", "How much load each allocator holds", ("-m", *_RATES)),
)


def main() -> None:
    """Run each command once, take its pictures, and write the page."""
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        reports: dict[tuple[str, ...], Path] = {}
        for picture in PICTURES:
            if picture.command not in reports:
                reports[picture.command] = _run(picture.command, Path(scratch) / picture.name)
            path = FOLDER / f"{picture.name}.png"
            _shoot(browser, picture, reports[picture.command], path)
            print(f"{path}  {path.stat().st_size // 1024} KiB")
    (FOLDER / "README.md").write_text(_page(), encoding="utf-8")


def _run(command: tuple[str, ...], folder: Path) -> Path:
    option = "hydra.sweep.dir" if command[0] == "-m" else "hydra.run.dir"
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command, f"{option}={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: {done.stderr.strip()}")
    return folder / REPORT_HTML


def _shoot(browser: Browser, picture: Picture, report: Path, path: Path) -> None:
    """Write a PNG of the top of the report, or of what follows the picture's anchor."""
    page = browser.new_page(
        color_scheme=picture.scheme, viewport={"width": WIDTH, "height": picture.height}
    )
    page.goto(report.as_uri())
    if picture.anchor:
        for slider in page.locator("figure.map input").all():
            slider.fill(STEP)
            slider.blur()
        heading = page.get_by_role("heading", name=picture.anchor, exact=True)
        heading.evaluate("each => each.scrollIntoView()")
    page.screenshot(path=path)
    page.close()


def _page() -> str:
    lines = [
        "# Gallery",
        "",
        "Reports as `report.html` shows them; `make gallery` takes these pictures.",
        "",
    ]
    for picture in PICTURES:
        command = shlex.join(["python", "-m", "harness", *picture.command])
        lines += [f"## {picture.title}", "", "```", command, "```", ""]
        lines += [f"![{picture.title}]({picture.name}.png)", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
