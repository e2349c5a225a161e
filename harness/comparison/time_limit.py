"""Stops what takes too long: an allocator that never answers must not cost the others' results."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class TookTooLong(BaseException):
    """Raised in the midst of whatever runs; its text is the place.

    No `Exception`, which an allocator might catch.
    """


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TookTooLong` in the block after so many seconds of the wall's clock; None: never.

    It is a signal that interrupts, so without SIGALRM (on Windows) and outside of the main thread
    there is no limit, and a call that does not return from C is not stopped.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not in_main or not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "nowhere"
    raise TookTooLong(place)
