"""The end of a sweep: one table of all its jobs, its files, and the report."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import IO

from harness.cli.columns import COLUMNS, Column
from harness.cli.reporting import try_report
from harness.cli.table import print_location, print_table
from harness.command.frame import FAILED, OK
from harness.results.errors import ResultsError
from harness.results.options import short_names, varied
from harness.results.runlog import ResultRow
from harness.results.sweep import SweepRow, read_sweep, write_sweep

#: shown where the number of GPUs varies: which of them serves most for its cost
PER_GPU = Column("output_tokens_per_s_per_gpu", "tok/s\na GPU", direction="higher")


def end_sweep(sweep_dir: Path, *, report: bool) -> int:
    """Show a sweep as one table, write its files and its report; return the exit status."""
    try:
        combine(sweep_dir)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    if report:
        try_report(sweep_dir)
    return OK


def combine(sweep_dir: str | Path, *, file: IO[str] | None = None) -> list[SweepRow]:
    """Print the combined table of a sweep and write its two files; return its rows in job order.

    Raises `ResultsError` when no job is found or the files cannot be written.
    """
    sweep_dir = Path(sweep_dir)
    rows = read_sweep(sweep_dir)
    if not rows:
        raise ResultsError(f"{sweep_dir}: no run of a sweep found")
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
    write_sweep(sweep_dir, rows)
    print_location(sweep_dir, file=file)
    return rows


def _with_rate_per_gpu(row: SweepRow) -> ResultRow:
    rate, count = row.row.metrics.get("output_tokens_per_s"), row.overrides.get("hardware.count")
    per_gpu = rate / count if rate is not None and isinstance(count, int) and count > 0 else None
    return replace(row.row, metrics={**row.row.metrics, PER_GPU.metric: per_gpu})
