"""The end of a sweep: one table of all its jobs, its files, and the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from harness.cli.columns import COLUMNS, Column
from harness.cli.reporting import try_report
from harness.cli.table import console_for, print_location, print_table
from harness.command.frame import FAILED, OK
from harness.results.errors import ResultsError
from harness.results.goal import NOTHING, SweepSpec, keeps_limits, score
from harness.results.numbers import short_number
from harness.results.options import short_names, varied
from harness.results.runlog import ResultRow
from harness.results.sweep import SweepRow, read_sweep, write_sweep

#: shown where the number of GPUs varies: which of them serves most for its cost
PER_GPU = Column("output_tokens_per_s_per_gpu", "tok/s\na GPU", direction="higher")


def end_sweep(sweep_dir: Path, *, report: bool, spec: SweepSpec | None = None) -> int:
    """Show a sweep as one table, write its files and its report; return the exit status."""
    try:
        combine(sweep_dir, spec)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    if report:
        for note in try_report(sweep_dir):
            print(f"note: {note}", file=sys.stderr)
    return OK


def combine(
    sweep_dir: str | Path, spec: SweepSpec | None = None, *, file: IO[str] | None = None
) -> list[SweepRow]:
    """Print the combined table of a sweep and write its two files; return its rows in job order.

    `spec` says of what the best row has most, if anything.

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
    if spec is not None and spec.maximize is not None:
        console_for(file).print(best_line(rows, spec), markup=False, highlight=False)
    write_sweep(sweep_dir, rows)
    print_location(sweep_dir, file=file)
    return rows


def best_line(rows: Sequence[SweepRow], spec: SweepSpec) -> str:
    """Return what the best row of a sweep is, or which comes closest to the limits."""
    best = max(rows, key=lambda row: score(row.row, spec))
    limits = spec.at_most or {}
    if score(best.row, spec) == NOTHING:
        return f"best: no row has {' and '.join([str(spec.maximize), *limits])}"
    names = short_names(varied(row.overrides for row in rows))
    where = [f"{short}={best.option(name)}" for name, short in names.items()]
    values = [f"{spec.maximize} {_number(best, spec.maximize)}"]
    values += [f"{name} {_number(best, name)} (at most {limits[name]:g})" for name in limits]
    head = "best" if keeps_limits(best.row, spec) else "no row keeps the limits; closest"
    return f"{head}: {' '.join([best.row.allocator, *where])}: {', '.join(values)}"


def _number(row: SweepRow, metric: str | None) -> str:
    value = row.row.metrics.get(metric or "")
    return "-" if value is None else short_number(value)


def _with_rate_per_gpu(row: SweepRow) -> ResultRow:
    rate, count = row.row.metrics.get("output_tokens_per_s"), row.overrides.get("hardware.count")
    per_gpu = rate / count if rate is not None and isinstance(count, int) and count > 0 else None
    return replace(row.row, metrics={**row.row.metrics, PER_GPU.metric: per_gpu})
