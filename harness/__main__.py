"""`python -m harness +workload=NAME [OPTION=VALUE ...]`: compare KV-cache allocators."""

from __future__ import annotations

import sys


def main() -> None:
    """Check the command line, then hand it to Hydra; bad input is one line and status 2."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from harness.usage import print_help

        print_help()
        return
    from harness.preflight import check_command_line, search_path_override

    sys.argv[1:] = [*sys.argv[1:], *search_path_override(sys.argv[1:])]
    problem = check_command_line(sys.argv[1:])
    if problem:
        print(f"error: {problem}" if "\n" not in problem else problem, file=sys.stderr)
        sys.exit(2)
    from harness.job import run_hydra

    sys.exit(run_hydra())


if __name__ == "__main__":
    main()
