"""Ctrl-C that stops a computation at once, but never a file that is being written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Notes Ctrl-C in `happened`; raises `KeyboardInterrupt` only while `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self.happened = False
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
