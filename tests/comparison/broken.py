"""Allocators that are wrong in one thing each."""

from dataclasses import replace

import numpy as np

from allocators.base import EMPTY_GRANT, Grant
from allocators.paged import Paged


class OneByteOff(Paged):
    """Says of one step that it holds a token more than there is."""

    def usage(self, rows, final, steps=1):
        usage = super().usage(rows, final, steps)
        return replace(usage, token=usage.token + 1)


class Exits(Paged):
    """Ends the process, as a careless library might."""

    def grow(self, rows, n=1):
        raise SystemExit(3)


class ExitsAtOnce(Paged):
    """Ends the process when it is made."""

    def __init__(self, geometry, **knobs):
        raise SystemExit("no licence")


class PressesCtrlC(Paged):
    """Raises what Ctrl-C raises."""

    def grow(self, rows, n=1):
        raise KeyboardInterrupt


class AnswersAnything(Paged):
    """Answers one call with what is told."""

    def __init__(self, geometry, call, answer):
        super().__init__(geometry)
        half = Grant(copies=np.zeros(3, dtype=np.int64))
        anything = {"none": None, "half": half, "empty": EMPTY_GRANT}
        setattr(self, call, lambda *given: anything.get(answer, answer))


class NeverAnswers(Paged):
    """Thinks for ever."""

    def grow(self, rows, n=1):
        while True:
            try:
                sum(range(1000))
            except Exception:
                continue
