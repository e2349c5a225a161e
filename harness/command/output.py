"""Standard output that may fail: a full disk or a closed pipe must not cost any results."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any


class Output:
    """A text file whose first failure is kept in `failure`; after it nothing more is written."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write, unless writing has failed before."""
        if self.failure is None:
            try:
                return self._file.write(text)
            except OSError as error:
                self.failure = error
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, unless that has failed before."""
        if self.failure is None:
            try:
                self._file.flush()
            except OSError as error:
                self.failure = error

    @property
    def is_full(self) -> bool:
        """Whether what was printed is lost, and not only unread by whoever closed the pipe."""
        return self.failure is not None and self.failure.errno != errno.EPIPE


def say(line: str) -> None:
    """Tell whoever waits how far a command is; what is printed on standard output is its result."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def lasting_output() -> Iterator[Output]:
    """Let standard output fail without an exception for as long as the block lasts."""
    before = sys.stdout
    output = Output(before)
    sys.stdout = output  # type: ignore[assignment]
    try:
        yield output
    finally:
        output.flush()
        sys.stdout = before
        if output.failure is not None:
            # What is still buffered would fail once more when the interpreter ends.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, before.fileno())
            os.close(nothing)
