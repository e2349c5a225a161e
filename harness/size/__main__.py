"""`python -m harness.size model=NAME hardware=NAME [OPTION=VALUE ...] [--format json]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from harness.command.frame import OK, run_command
from harness.size.options import USAGE, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    return run_command(_main, USAGE, arguments, interrupted="interrupted")


def _main(arguments: Sequence[str]) -> int:
    asked = parse(arguments)
    from harness.size.budget import size
    from harness.size.output import record, tables

    sized = size(asked)
    print(record(sized) if asked.format == "json" else tables(sized, asked))
    return OK


if __name__ == "__main__":
    sys.exit(main())
