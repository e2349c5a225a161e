"""Chooses the cost model that a configuration names."""

from __future__ import annotations

from harness.cost.calibrated import Calibrated
from harness.cost.model import CostModel
from harness.cost.roofline import Roofline
from harness.cost.shapes import CostError, HardwareSpec, ModelShape
from harness.cost.software import SoftwareSpec, check_beside_calibration, check_software
from harness.cost.spec import CostSpec

COST_MODELS = ("roofline", "calibrated")


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
        _check_uniform(model)
        return Calibrated.read(model, hardware, cost)
    raise CostError(f"cost_model.name must be one of {', '.join(COST_MODELS)}, got {cost.name!r}")


def _check_uniform(model: ModelShape) -> None:
    """Raise `CostError` for what no calibration has measured."""
    if model.layer_groups:
        raise CostError(
            f"{model.name} has layers that keep different KV, and calibrations are of uniform "
            "models: take cost_model=roofline"
        )
    if model.kv_dtype != "auto":
        raise CostError(
            f"a calibration was measured with KV as the model computes: kv_dtype={model.kv_dtype} "
            "needs cost_model=roofline"
        )
