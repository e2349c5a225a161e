"""Runs and sweeps as pandas tables, for a notebook."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.errors import ResultsError
from harness.results.metrics import METRICS
from harness.results.options import FREE_OPTIONS, flat, varied
from harness.results.reader import load_summary, summary_rows
from harness.results.sweep import in_order, job_dirs
from harness.results.writer import SUMMARY

if TYPE_CHECKING:
    import pandas as pd

#: what a configuration holds that tells no run from another
_SILENT = ("notes", "num_requests", *FREE_OPTIONS)


def load(pattern: str | Path, options: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row for each allocator of every run and sweep that a glob pattern matches.

    pattern: of run directories, sweeps or `summary.json` files: `results/runs/*/*`.
    options: names of options to show that do not differ between the runs, `model.name` say.

    The columns are `run` (its directory), every option that differs between the runs under its full
    name, `allocator`, `status`, `reason`, and the metrics of docs/metrics.md (missing where
    undefined). A job of a sweep that left no results is a row of status `error`.

    Raises `ResultsError` where there is no run, or one named by itself cannot be read.
    """
    import pandas as pd

    runs = _runs(str(pattern))
    rows: list[dict[str, Any]] = []
    configs: dict[str, dict[str, Any]] = {}
    for folder, alone in runs:
        name = str(folder)
        try:
            summary = load_summary(folder)
        except ResultsError as error:
            if alone:
                raise
            rows.append({"run": name, "allocator": "-", "status": "error", "reason": str(error)})
            continue
        configs[name] = flat(summary["config"])
        rows += [
            {"run": name, "allocator": row.allocator, "status": row.status, "reason": row.reason,
             **row.metrics}
            for row in summary_rows(summary)
        ]  # fmt: skip
    names = [name for name in varied(configs.values()) if name not in _SILENT]
    names = list(dict.fromkeys([*options, *names]))
    for row in rows:
        row.update({name: configs.get(row["run"], {}).get(name) for name in names})
    metrics = [m.name for m in METRICS if any(m.name in row for row in rows)]
    others = dict.fromkeys(key for row in rows for key in row)
    columns = ["run", *names, "allocator", "status", "reason", *metrics]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*columns, *others])))


def load_columns(folder: Path, file: str) -> pd.DataFrame:
    """Return a Parquet file of a run, or of all jobs of a sweep with their directory in `run`.

    Raises `ResultsError` where no run has one that can be read.
    """
    import pandas as pd

    found = []
    for run, _ in _runs(glob.escape(str(folder))):
        try:
            found.append(pd.read_parquet(run / file).assign(run=str(run)))
        except (OSError, ValueError):
            continue  # a job that left none
    if not found:
        raise ResultsError(f"{folder}: no run has a {file} that can be read")
    return pd.concat(found, ignore_index=True)


def _runs(pattern: str) -> list[tuple[Path, bool]]:
    """The run directories that a pattern matches, sorted, and whether each is named by itself."""
    found: dict[Path, bool] = {}
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if path.name == SUMMARY:
            found[path.parent] = True
        elif (path / SUMMARY).exists():
            found[path] = True
        elif path.is_dir():
            found.update({job: False for job in in_order(path, job_dirs(path)) if job not in found})
    if not found:
        raise ResultsError(f"{pattern}: no run and no sweep")
    return list(found.items())
