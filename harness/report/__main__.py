"""`python -m harness.report RUN_DIR [RUN_DIR ...] [--out DIR]`: write report.md and report.html."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.command.frame import OK, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; return 0, or 2 with one line of what is wrong."""
    return run_command(_main, None, arguments)


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.report",
        description="One page for a run, a sweep, or several runs side by side.",
    )
    parser.add_argument("run", metavar="RUN_DIR", nargs="+", help="run or sweep directories")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where to write (default: the run directory; ./report for many)",
    )
    parser.add_argument("--title", help="heading of the report")
    options = parser.parse_args(arguments)
    from harness.report.build import write_report

    first = Path(options.run[0])
    out_dir = first if first.is_dir() else first.parent
    if options.out or len(options.run) > 1:
        out_dir = Path(options.out or "report")
    paths = write_report(options.run, out_dir, options.title)
    print("\n".join(str(path) for path in paths))
    return OK


if __name__ == "__main__":
    sys.exit(main())
