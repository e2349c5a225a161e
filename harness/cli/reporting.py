"""What is drawn and written of results after the table: figures and the report.

If that fails, the results are there all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from harness.comparison import Comparison
from harness.results.reader import read_logs


def try_figures(comparison: Comparison) -> list[str]:
    """Draw the figures of a run; return a note if that fails."""

    def draw() -> None:
        from harness.report.charts import write_figures

        logs, _ = read_logs(comparison.run_dir, comparison.totals)
        write_figures(comparison.run_dir, comparison.rows, list(logs.values()))

    return _noted("no figures", draw)


def try_report(run_dir: Path) -> list[str]:
    """Write the report of a run or a sweep; return a note if that fails."""

    def write() -> None:
        from harness.report import write_report

        write_report([run_dir], run_dir)

    return _noted("no report", write)


def _noted(what: str, work: Callable[[], None]) -> list[str]:
    """Make a failure one line; a debugger's switch lets it through."""
    try:
        work()
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        text = " ".join(str(error).split())
        return [f"{what}: {type(error).__name__}: {text}"]
    return []
