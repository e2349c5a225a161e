"""Chooses the cost model that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from allocators.base import Allocator, Grant, IntArray
from harness.cost.calibrated import Calibrated
from harness.cost.curves import FloatArray
from harness.cost.flat import Priced
from harness.cost.grants import PricedGrant
from harness.cost.roofline import Roofline, Work
from harness.cost.shapes import CostError, HardwareSpec, ModelShape
from harness.cost.software import SoftwareSpec, check_beside_calibration, check_software
from harness.cost.spec import CostSpec

COST_MODELS = ("roofline", "calibrated")


class CostModel(Protocol):
    """What is asked of a cost model, the parts by the simulated executor; seconds throughout."""

    def step_s(self, work: Work) -> float:
        """Return the seconds of one step."""

    def step(self, work: Work) -> Priced:
        """Return what one step takes, and on what."""

    def decode_window_s(
        self,
        seqs: int,
        context_tokens: int,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> FloatArray:
        """Return [steps] seconds; bitwise those of `step_s` of each step."""

    def decode_window(
        self,
        seqs: int,
        context_tokens: int,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> Priced:
        """Return what these steps take, and on what; bitwise that of `step` of each."""

    def grant(self, grant: Grant, allocator: Allocator) -> PricedGrant:
        """Return what a grant asks for before the step computes takes, and on what."""

    def grant_s(self, grant: Grant, allocator: Allocator) -> float:
        """Return the seconds of what a grant asks for before the step computes."""

    def overlapped_s(
        self, compute_s: float, grants: Sequence[Grant], allocator: Allocator
    ) -> float:
        """Return the seconds in which a step computes while its grants' bytes are sent."""


def make_cost(
    model: ModelShape, hardware: HardwareSpec, cost: CostSpec, software: SoftwareSpec | None = None
) -> CostModel:
    """Return the cost model `cost.name` under a profile of software (None: the default one).

    Measured steps hold their software, so of a calibration the profile changes no step.
    Raises `CostError` in one line.
    """
    software = software or SoftwareSpec()
    check_software(software)
    if cost.name == "roofline":
        if cost.file:
            raise CostError("cost_model.file is read by cost_model=calibrated only")
        return Roofline(model, hardware, cost, software)
    if cost.name == "calibrated":
        check_beside_calibration(software)
        return Calibrated.read(model, hardware, cost)
    raise CostError(f"cost_model.name must be one of {', '.join(COST_MODELS)}, got {cost.name!r}")
