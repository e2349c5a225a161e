"""The frame of a command: its help, its one-line errors, and its exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from harness.errors import ConfigError

#: done; could not be done in part or at all; the input was wrong; Ctrl-C
OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def run_command(
    main: Callable[[list[str]], int],
    usage: str,
    arguments: Sequence[str] | None = None,
    *,
    writing: str = "the results",
    also_wrong: tuple[type[Exception], ...] = (),
) -> int:
    """Run `main` with the arguments, by default those of the process; return its exit status.

    `-h` and `--help` print the usage. Input that is wrong (`ConfigError` and the types of
    `also_wrong`) is one line and status 2, a failure to write `writing` one line and status 1.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(usage, end="")
        return OK
    try:
        return main(given)
    except (ConfigError, *also_wrong) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        print(f"error: cannot write {writing}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
