"""`python -m harness.compare BASELINE CURRENT [CURRENT ...]`: 0 no regression, 1 some, 2 cannot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.command.frame import run_command
from harness.compare.judge import compare_cases
from harness.compare.judgement import Judgement
from harness.compare.load import CompareError, load_cases
from harness.compare.tolerance import Tolerances
from harness.results.atomic import write_text

FORMATS = ("table", "markdown", "json", "junit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    return run_command(_main, None, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    judgement = compare_cases(
        load_cases([options.baseline, *options.baseline_repeat]),
        load_cases(options.current),
        Tolerances(options.tolerance),
        measured=options.measured == "auto",
        strict=options.strict,
    )
    text = _render(options.format, judgement, options.all)
    if options.output is None:
        sys.stdout.write(text)
        return judgement.exit_status
    try:
        write_text(Path(options.output), text)
    except OSError as error:
        raise CompareError(f"{options.output}: cannot be written: {error.strerror}") from error
    return judgement.exit_status


def _render(name: str, judgement: Judgement, everything: bool) -> str:
    from harness.compare import render
    from harness.compare.junit import as_junit

    if name == "table":
        return render.as_table(judgement, everything)
    if name == "markdown":
        return render.as_markdown(judgement, everything)
    return render.as_json(judgement) if name == "json" else as_junit(judgement)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.compare",
        description="Exit status 0: no regression. 1: a regression. 2: could not compare.",
        epilog="A path is a summary.json, a run directory, a sweep, or a folder of baselines. Runs "
        "of one identical configuration are repeats of it. docs/ci.md says what is compared, how.",
    )
    parser.add_argument("baseline", metavar="BASELINE")
    parser.add_argument("current", metavar="CURRENT", nargs="+", help="several are repeats")
    parser.add_argument(
        "--baseline-repeat", metavar="PATH", action="append", default=[], help="more of BASELINE"
    )
    parser.add_argument(
        "--tolerance",
        metavar="METRIC=5%",
        action="append",
        default=[],
        help="how much worse it may get: relative with %%, else in its unit; METRIC may be a "
        "pattern ('ttft_*=2%%'); the last that matches counts; may be repeated",
    )
    parser.add_argument(
        "--measured",
        choices=("auto", "ignore"),
        default="auto",
        help="metrics measured on a clock: compared where samples allow it, or left out",
    )
    parser.add_argument(
        "--strict", action="store_true", help="a change without a direction fails too"
    )
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument("--all", action="store_true", help="print what is the same, too")
    parser.add_argument("--output", metavar="FILE", help="write there instead of printing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
