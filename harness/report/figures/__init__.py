"""Figures of a run: where the memory went, over time too, and what it bought."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.results.runlog import Row, RunLog

FIGURES = ("waste", "memory_over_time", "throughput", "latency")


def write_figures(
    run_dir: str | Path, rows: Sequence[Row], logs: Sequence[RunLog] = ()
) -> list[Path]:
    """Write `run_dir`/figures/*.png and return their paths, in the order of `FIGURES`.

    A row finds its log by the allocator's name. Rows that failed appear with their reason; without
    a single row nothing is written. No display is needed.
    """
    if not rows:
        return []
    from harness.report.figures import latency, memory, throughput, waste
    from harness.report.figures.theme import save, themed

    by_allocator = {log.allocator: log for log in logs}
    folder = Path(run_dir) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in FIGURES]
    with themed():
        drawn = (
            waste.draw(rows),
            memory.draw(rows, by_allocator),
            throughput.draw(rows),
            latency.draw(rows, by_allocator),
        )
        for path, figure in zip(paths, drawn, strict=True):
            save(figure, path)
    return paths
