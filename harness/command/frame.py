"""What the small commands have in common: help, one line for what is wrong, exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from harness.errors import ConfigError

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def run_command(
    main: Callable[[Sequence[str]], int],
    usage: str,
    arguments: Sequence[str],
    writing: str = "the results",
) -> int:
    """Return the exit status of `main(arguments)`; `-h` or `--help` prints `usage` instead.

    A `ConfigError` is one line and status 2; an `OSError` says that `writing` cannot be written,
    status 1; Ctrl-C is status 130.
    """
    if {"-h", "--help"} & set(arguments):
        print(usage, end="")
        return OK
    try:
        return main(arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        print(f"error: cannot write {writing}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
