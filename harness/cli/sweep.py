"""The end of a sweep: one table of all its jobs, its files, and the report.

Configured as `hydra.callbacks.combined_table._target_: harness.cli.sweep.CombinedTable`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from hydra.experimental.callback import Callback

from harness.cli.columns import COLUMNS, Column
from harness.cli.reporting import try_report
from harness.cli.table import print_location, print_table
from harness.results.errors import ResultsError
from harness.results.options import short_names, varied
from harness.results.runlog import ResultRow
from harness.results.sweep import SweepRow, read_sweep, write_sweep

#: shown where the number of GPUs varies: which of them serves most for its cost
PER_GPU = Column("output_tokens_per_s_per_gpu", "tok/s\na GPU", direction="higher")


class CombinedTable(Callback):
    """Hydra callback: combine the jobs when a multirun ends."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Read the jobs below `hydra.sweep.dir`, print their table, write the two files."""
        sweep_dir = Path(config.hydra.sweep.dir)
        combine(sweep_dir)
        if config.get("report", "none") != "none":
            try_report(sweep_dir)


def combine(sweep_dir: str | Path, *, file: IO[str] | None = None) -> list[SweepRow]:
    """Print and write the combined table of a sweep; return its rows in job order.

    Raises `ResultsError` when no job is found or the files cannot be written.
    """
    sweep_dir = Path(sweep_dir)
    rows = read_sweep(sweep_dir)
    if not rows:
        raise ResultsError(f"{sweep_dir}: no run of a sweep found")
    write_sweep(sweep_dir, rows)
    headers = short_names(varied(row.overrides for row in rows))
    leading = [
        {header: row.option(name) for name, header in headers.items() if name in row.overrides}
        for row in rows
    ]
    columns, shown = COLUMNS, [row.row for row in rows]
    if "hardware.count" in headers:
        at = COLUMNS.index(next(c for c in COLUMNS if c.metric == "output_tokens_per_s")) + 1
        columns = (*COLUMNS[:at], PER_GPU, *COLUMNS[at:])
        shown = [_with_rate_per_gpu(row) for row in rows]
    print_table(shown, leading=leading, columns=columns, file=file)
    print_location(sweep_dir, file=file)
    return rows


def _with_rate_per_gpu(row: SweepRow) -> ResultRow:
    rate, count = row.row.metrics.get("output_tokens_per_s"), row.overrides.get("hardware.count")
    per_gpu = rate / count if rate is not None and isinstance(count, int) and count > 0 else None
    return replace(row.row, metrics={**row.row.metrics, PER_GPU.metric: per_gpu})
