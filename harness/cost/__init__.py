"""What a step and a grant cost: model shapes, hardware, a roofline, or measured tables."""

from harness.cost.build import COST_MODELS, CostModel, make_cost
from harness.cost.calibrated import Calibrated
from harness.cost.kv import kv_bytes_per_token, kv_geometry, kv_heads_per_rank
from harness.cost.layers import LayerSpec
from harness.cost.memory import MemoryBudget, MemorySpec, kv_pool_bytes, memory_budget
from harness.cost.parameters import parameter_count, weight_bytes
from harness.cost.roofline import Roofline, Work
from harness.cost.shapes import CostError, HardwareSpec, ModelShape
from harness.cost.software import SoftwareSpec
from harness.cost.spec import CostSpec

__all__ = [
    "COST_MODELS",
    "Calibrated",
    "CostError",
    "CostModel",
    "CostSpec",
    "HardwareSpec",
    "LayerSpec",
    "MemoryBudget",
    "MemorySpec",
    "ModelShape",
    "Roofline",
    "SoftwareSpec",
    "Work",
    "kv_bytes_per_token",
    "kv_geometry",
    "kv_heads_per_rank",
    "kv_pool_bytes",
    "make_cost",
    "memory_budget",
    "parameter_count",
    "weight_bytes",
]
