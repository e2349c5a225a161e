"""What looks on while the engine runs: memory maps, traces. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from allocators.base import Allocator, IntArray
from harness.engine.plan import Plan
from harness.engine.running import Running


@dataclass(frozen=True, slots=True)
class StepView:
    """One step, or as many as the plan runs in one go, after its grants, before its releases.

    `first` is the number of the first step and `ends_s` the end of each. Lengths and addresses are
    those of the last step; each decoding sequence had one slot less a step earlier.
    `category_bytes` are [steps] bytes of each of the memory categories.
    """

    first: int
    start_s: float
    ends_s: np.ndarray
    plan: Plan
    running: Running
    allocator: Allocator
    category_bytes: Mapping[str, IntArray]

    @property
    def steps(self) -> int:
        return len(self.ends_s)


class Observer(Protocol):
    """Is shown every step, in order."""

    def on_step(self, step: StepView) -> None:
        """Look at a step; what it is shown must not be changed."""
