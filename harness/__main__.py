"""`python -m harness +workload=NAME [OPTION=VALUE ...]`: compare KV-cache allocators."""

from __future__ import annotations

import sys


def main() -> None:
    """Check the command line, then hand it to Hydra; bad input is one line and status 2."""
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        from harness.cli.help import print_help

        print_help()
        return 0
    from harness.cli.checks import check, search_path_override
    from harness.cli.points import Points

    sys.argv[1:] = [*sys.argv[1:], *search_path_override(sys.argv[1:])]
    points = Points()
    problem, pinned = check(sys.argv[1:], points)
    if problem:
        print(f"error: {problem}" if "\n" not in problem else problem, file=sys.stderr)
        return 2
    sys.argv[1:] = [*sys.argv[1:], *pinned]
    from harness.cli.job import run_hydra

    return run_hydra(points)


if __name__ == "__main__":
    main()
