"""What a step and a grant cost: model shapes, hardware, and the roofline built from them."""

from harness.cost.roofline import Roofline, Work
from harness.cost.shapes import (
    CostError,
    HardwareSpec,
    ModelShape,
    kv_bytes_per_token,
    kv_heads_per_rank,
    kv_pool_bytes,
    parameter_count,
    weight_bytes,
)
from harness.cost.spec import CostSpec

__all__ = [
    "CostError",
    "CostSpec",
    "HardwareSpec",
    "ModelShape",
    "Roofline",
    "Work",
    "kv_bytes_per_token",
    "kv_heads_per_rank",
    "kv_pool_bytes",
    "parameter_count",
    "weight_bytes",
]
