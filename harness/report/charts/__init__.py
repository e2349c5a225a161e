"""Every chart, drawn once by Matplotlib: as PNG into a run's `figures/`, as SVG into its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.results.runlog import ResultRow, RunLog

FIGURES = ("waste", "memory_over_time", "time", "throughput", "latency")


def write_figures(
    run_dir: str | Path, rows: Sequence[ResultRow], logs: Sequence[RunLog] = ()
) -> list[Path]:
    """Write `run_dir`/figures/*.png and return their paths, in the order of `FIGURES`.

    A row finds its log by the allocator's name. Rows that failed appear with their reason; without
    a single row nothing is written. No display is needed.
    """
    if not rows:
        return []
    from harness.report.charts import latency, memory, throughput, time, waste
    from harness.report.charts.chart import Variant, save
    from harness.report.charts.theme import themed

    by_allocator = {log.allocator: log for log in logs}
    variants = [Variant(row.allocator, row, by_allocator.get(row.allocator)) for row in rows]
    folder = Path(run_dir) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in FIGURES]
    with themed():
        for path, module in zip(paths, (waste, memory, time, throughput, latency), strict=True):
            save(module.draw(variants).figure, path)
    return paths
