"""Time and memory of whole runs against their number of requests, as a table and a picture.

    python -m tests.engine.compiled.scale TRACE [figure=PATH]

TRACE is the Azure conversation trace of 2023, of which prompts and outputs are drawn apart from
each other.  Each run is a process of its own, `python -m harness` with its files, figures and
report; loops are compiled before the first that counts.  A few minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.command.tables import markdown_table

ALLOCATORS = ("paged", "virtual", "contiguous_oracle")
REQUESTS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
OPTIONS = (
    "+workload=sharegpt", "workload.arrivals=poisson", "workload.rate=2",
    "workload.too_long=truncate", "model=codellama-34b", "hardware=a100-80gb", "hardware.count=2",
    "engine=chunked", "engine.max_len=4096", "engine.max_num_batched_tokens=512",
    "engine.max_num_seqs=128", "engine.compiled=on",
)  # fmt: skip
KIB_A_MIB = 1024  # the kernel says the peak in KiB


def run(trace: str, allocator: str, requests: int) -> tuple[float, float]:
    """Return the seconds that a run takes, and the MiB that it holds at its peak."""
    lengths = [
        f"workload.{part}={{kind: empirical, path: {trace}, column: {column}}}"
        for part, column in (("prompt", "ContextTokens"), ("output", "GeneratedTokens"))
    ]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "harness", *OPTIONS, *lengths, f"allocator=[{allocator}]",
            f"workload.num_requests={requests}", f"hydra.run.dir={folder}/run",
        ]  # fmt: skip
        begun_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        # Its own peak, and not the largest of all that have ended.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
        return time.perf_counter() - begun_s, usage.ru_maxrss / KIB_A_MIB


def draw(found: dict[tuple[str, int], tuple[float, float]], path: Path) -> None:
    """Write a picture: seconds and MiB over requests, one line an allocator."""
    from matplotlib.figure import Figure

    from harness.report.charts.theme import themed

    with themed():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, place, title in zip(
            figure.subplots(1, 2), (0, 1), ("whole run, s", "peak memory, MiB"), strict=True
        ):
            for allocator in ALLOCATORS:
                values = [found[allocator, n][place] for n in REQUESTS]
                axes.plot([n / 1e6 for n in REQUESTS], values, marker="o", label=allocator)
            axes.set_title(title)
            axes.set_xlabel("million requests")
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
        figure.axes[0].legend()
        figure.savefig(path, dpi=110)


def main(arguments: list[str]) -> int:
    """Print the table, and write the picture that is asked for."""
    options = dict(a.split("=", 1) for a in arguments if a.startswith("figure="))
    traces = [a for a in arguments if not a.startswith("figure=")]
    if len(traces) != 1 or not Path(traces[0]).is_file():
        print("expected the path of one trace, and figure=PATH for a picture", file=sys.stderr)
        return 2
    found = {}
    for allocator in ALLOCATORS:
        run(traces[0], allocator, 1000)
        for requests in REQUESTS:
            found[allocator, requests] = run(traces[0], allocator, requests)
    rows = [
        (f"{n:,}", *("{:.1f} s, {:.0f} MiB".format(*found[name, n]) for name in ALLOCATORS))
        for n in REQUESTS
    ]
    print(markdown_table(("requests", *ALLOCATORS), rows, "rrrr"))
    if "figure" in options:
        draw(found, Path(options["figure"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
