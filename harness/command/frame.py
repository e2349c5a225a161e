"""The frame of every command: its help, its one-line errors, its exit status, its output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from harness.command.interrupts import sigterm_as_ctrl_c
from harness.command.output import lasting_output
from harness.errors import InputError
from harness.siblings import in_the_way

#: done; could not be done in part or at all; the input was wrong; Ctrl-C
OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def run_command(
    main: Callable[[list[str]], int],
    usage: str | None,
    arguments: Sequence[str] | None = None,
    *,
    writing: str = "the results",
    interrupted: str | None = "interrupted; nothing was written",
) -> int:
    """Run `main` with the arguments, by default those of the process; return its exit status.

    `-h` and `--help` print the usage, unless that is None and `main` answers them itself. Input
    that is wrong (`InputError`, `WorkloadError`) is one line and status 2; a failure to write
    `writing`, or what is printed, is one line and status 1. SIGTERM counts as Ctrl-C. What
    nobody reads to its end (`| head`) is no failure.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with sigterm_as_ctrl_c(), lasting_output() as output:
        try:
            problem = in_the_way()
            if problem is not None:
                raise InputError(problem)
            if usage is not None and {"-h", "--help"} & set(given):
                print(usage, end="")
                status = OK
            else:
                status = main(given)
        except _wrong_input() as error:
            print(f"error: {error}", file=sys.stderr)
            status = WRONG
        except OSError as error:
            print(f"error: cannot write {writing}: {error}", file=sys.stderr)
            status = FAILED
        except KeyboardInterrupt:
            if interrupted is not None:
                print(interrupted, file=sys.stderr)
            status = INTERRUPTED
    if output.is_full:
        print(f"error: cannot write what is printed: {output.failure}", file=sys.stderr)
        status = status or FAILED
    return status


def _wrong_input() -> tuple[type[Exception], ...]:
    # Not with the module: a command that only prints its help need not wait for NumPy.
    from workloads.errors import WorkloadError

    return InputError, WorkloadError
