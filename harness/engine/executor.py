"""What the engine asks of an executor: that it runs a plan, and says how long that took."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from allocators.base import Grant, IntArray
from harness.engine.plan import Plan
from harness.engine.running import Running


class Executor(Protocol):
    """The clock of a run.  `skips` says that it can price several steps of growth at once."""

    skips: bool

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Run one step and return the seconds it took.

        `lengths` are the slots that the decoding (and padding) rows fill, the new token included.
        """

    def map_s(self, grant: Grant) -> float:
        """Return the seconds that mapping and unmapping took, hidden ones included."""

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> np.ndarray:
        """Return the seconds of `steps` steps of pure growth, without side effects.

        `lengths` are those of the first step; only it executes `grants`.
        """


@runtime_checkable
class Explains(Protocol):
    """An executor that knows what the time of a step is made of."""

    @property
    def parts(self) -> tuple[float | np.ndarray, ...]:
        """The seconds of each of `PARTS` of what `step` or `window` was last asked for.

        A number for all of its steps, or [steps] of them.
        """


@runtime_checkable
class Samples(Protocol):
    """An executor that really samples, so that it, and not a draw, chooses how beams go on."""

    def begin(self, running: Running) -> None:
        """Be told of the running batch before the first step."""

    def finish(self) -> float:
        """Be told that the last step is over; return the seconds of maps not yet reported."""
