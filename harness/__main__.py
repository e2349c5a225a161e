"""`python -m harness +workload=NAME [OPTION=VALUE ...]`: compare KV-cache allocators."""

from __future__ import annotations

import gc
import sys

from harness.command.frame import OK, WRONG, run_command


def main() -> None:
    """Check the command line, then hand it to Hydra; bad input is one line and status 2."""
    # Imports and drawing make hundreds of thousands of objects that stay: a sixteenth of the time
    # went into looking for those among them that do not.
    gc.set_threshold(50_000, 20, 20)
    sys.exit(run_command(_run, None, interrupted=None))


def _run(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from harness.cli.help import print_help

        print_help()
        return OK
    if arguments[:1] == ["--completion"]:
        from harness.cli.completion import SCRIPT

        print(SCRIPT, end="")
        return OK
    if arguments[:1] == ["--complete"]:
        from harness.cli.completion import candidates

        print("\n".join(candidates(" ".join(arguments[1:]))))
        return OK
    if any(argument.startswith("+experiment=") for argument in arguments):
        from harness.published.command import chosen, run

        figure = chosen(arguments)
        if figure is not None:
            return run(figure, arguments)
    from harness.cli.checks import check
    from harness.cli.installed import search_path_override
    from harness.cli.points import Points

    arguments = [*arguments, *search_path_override(arguments)]
    points = Points()
    problem, for_hydra = check(arguments, points)
    if problem:
        print(f"error: {problem}" if "\n" not in problem else problem, file=sys.stderr)
        return WRONG
    sys.argv[1:] = for_hydra
    try:
        if points.sweep is not None:
            from harness.cli.sweeps.launch import run_sweep

            return run_sweep(points.sweep, points)
        from harness.cli.job import run_hydra, run_one

        return run_hydra(points) if points.composed is None else run_one(points)
    finally:
        points.release()


if __name__ == "__main__":
    main()
