"""`python -m harness.report RUN_DIR [RUN_DIR ...] [--out DIR]`: write report.md and report.html."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Write the report; return 0, or 2 with one line of what is wrong."""
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
    from harness.report.load import ReportError

    first = Path(options.run[0])
    lone = first if first.is_dir() else first.parent
    out_dir = (
        Path(options.out) if options.out else lone if len(options.run) == 1 else Path("report")
    )
    try:
        paths = write_report(options.run, out_dir, options.title)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
