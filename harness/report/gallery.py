"""Pictures of reports for the documentation: `python -m harness.report.gallery docs/gallery`.

Runs the comparisons below, opens their reports in Chromium and writes small PNGs, and the page that
shows them with their commands.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.report.browser import Browser, BrowserError
from harness.report.build import REPORT_HTML
from harness.results.atomic import replacing, write_text

WIDTH, MOST_HEIGHT, COLOURS = 1240, 2300, 256


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
PICTURES = (
    Picture("beam", "Beam search, five allocators", (*_BEAM, *_MAP)),
    Picture(
        "memory-map",
        "Who holds which part of the pool, step by step (the same run, dark theme)",
        (*_BEAM, *_MAP),
        "dark",
        "Memory map",
        1260,
    ),
    Picture("block-size", "What the block size does", ("-m", *_BLOCKS, *_SIZES)),
    Picture("rate", "How much load each allocator holds", ("-m", *_RATES)),
)


def make_gallery(out_dir: Path) -> list[Path]:
    """Run, open, write; returns the paths. Raises BrowserError or OSError in one line."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    with tempfile.TemporaryDirectory() as scratch, Browser() as browser:
        reports: dict[tuple[str, ...], Path] = {}
        for picture in PICTURES:
            if picture.command not in reports:
                reports[picture.command] = _run(picture.command, Path(scratch) / picture.name)
            png = _shoot(browser, picture, reports[picture.command])
            paths.append(out_dir / f"{picture.name}.png")
            with replacing(paths[-1]) as temporary:
                temporary.write_bytes(png)
    paths.append(out_dir / "README.md")
    write_text(paths[-1], _page())
    return paths


def _run(command: tuple[str, ...], folder: Path) -> Path:
    option = "hydra.sweep.dir" if command[0] == "-m" else "hydra.run.dir"
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command, f"{option}={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BrowserError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return folder / REPORT_HTML


def _shoot(browser: Browser, picture: Picture, report: Path) -> bytes:
    """The picture as a PNG of a limited palette."""
    from PIL import Image

    browser.open(report, width=WIDTH, height=picture.height, scheme=picture.scheme)
    if picture.anchor:
        find = (
            f"[...document.querySelectorAll('h3')].find(h => h.textContent == '{picture.anchor}')"
        )
        browser.evaluate(f"{find}.scrollIntoView()")
        browser.evaluate(
            "Promise.all([...document.querySelectorAll('figure.map input')].map(s => {"
            " s.value = 90; s.dispatchEvent(new Event('input'));"
            " return s.closest('figure').querySelector('img').decode(); }))"
        )
    image = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    # The most frequent colours as they are: averaging them would change what a colour means.
    counted = sorted(image.getcolors(1 << 24) or [], reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted for part in colour])
    small = image.quantize(palette=palette, dither=Image.Dither.NONE)
    content = io.BytesIO()
    small.save(content, "PNG", optimize=True)
    return content.getvalue()


def _page() -> str:
    lines = [
        "# Gallery",
        "",
        "Reports as `report.html` shows them; `make gallery` takes these.",
        "",
    ]
    for picture in PICTURES:
        command = shlex.join(["python", "-m", "harness", *picture.command])
        lines += [f"## {picture.title}", "", "```", command, "```", ""]
        lines += [f"![{picture.title}]({picture.name}.png)", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Make the gallery; return 0, or 2 with one line of what is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m harness.report.gallery OUT_DIR", file=sys.stderr)
        return 2
    try:
        paths = make_gallery(Path(arguments[0]))
    except (BrowserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"{path}  {path.stat().st_size // 1024} KiB" for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
