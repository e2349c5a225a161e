"""What is drawn and written of results after the table: figures and the report."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def try_report(run_dir: Path) -> None:
    """Write the report of a run or a sweep; if that fails the results are there all the same."""
    from harness.report import write_report

    try:
        write_report([run_dir], run_dir)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        text = " ".join(str(error).split())
        print(f"note: no report: {type(error).__name__}: {text}", file=sys.stderr)
