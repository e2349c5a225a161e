"""What is drawn and written of results after the table: figures and the report.

If that fails, the results are there all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.results.reader import read_logs
from harness.run import Comparison


def try_figures(comparison: Comparison) -> None:
    """Draw the figures of a run."""
    with _noted("no figures"):
        from harness.report.charts import write_figures

        logs, _ = read_logs(comparison.run_dir, comparison.totals)
        write_figures(comparison.run_dir, comparison.rows, list(logs.values()))


def try_report(run_dir: Path) -> None:
    """Write the report of a run or a sweep."""
    with _noted("no report"):
        from harness.report import write_report

        write_report([run_dir], run_dir)


@contextmanager
def _noted(what: str) -> Iterator[None]:
    """Make a failure one line; a debugger's switch lets it through."""
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        text = " ".join(str(error).split())
        print(f"note: {what}: {type(error).__name__}: {text}", file=sys.stderr)
