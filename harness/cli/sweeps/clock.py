"""What is measured on a clock runs alone on its machine, whichever process runs it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = Path(tempfile.gettempdir()) / "kv-harness-clock.lock"


@contextmanager
def on_this_machine(*, alone: bool, lock: Path = LOCK) -> Iterator[None]:
    """Hold the machine's clock: `alone`, or beside others that do not ask to be alone; waits.

    It is asked of the jobs of a sweep that run beside each other; a process that dies holds
    nothing.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
