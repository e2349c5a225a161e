"""Which values of a model's shape, of a GPU and of a server's memory make sense.

A number out of range would not stop a simulation: it would print a plausible table.  Each check
raises `CostError` with one line that names the option and what is allowed.
"""

from __future__ import annotations

import math

from harness.cost.memory import LOGITS_OF, MemorySpec
from harness.cost.shapes import CostError, HardwareSpec, ModelShape

FAMILIES = ("llama", "opt")
DTYPE_BYTES = (1, 2, 4, 8)
#: least and most of each whole number; the most is beyond any model or machine, and far from where
#: arithmetic overflows
SHAPE_RANGES = {
    "layers": (1, 10_000),
    "hidden": (1, 2**20),
    "heads": (1, 2**16),
    "kv_heads": (1, 2**16),
    "head_dim": (1, 2**16),
    "ffn": (1, 2**24),
    "vocab": (1, 2**24),
    "max_context": (1, 2**30),
    "experts": (1, 2**16),
    "active_experts": (1, 2**16),
}
#: beyond any GPU's memory (GiB), bandwidth (GB/s) or rate (TFLOP/s), and any time (us)
MOST = 1e9
HARDWARE_POSITIVE = ("memory_gb", "bandwidth_gb_s", "tflops", "pcie_gb_s", "interconnect_gb_s")
HARDWARE_SHARES = ("memory_utilization", "decode_bandwidth_efficiency", "all_reduce_efficiency")
HARDWARE_TIMES = ("decode_floor_us", "all_reduce_latency_us")
MOST_GPUS = 2**16
MEMORY_GIB = (
    "activation_gib", "activation_base_gib", "graph_gib", "context_gib", "communication_gib",
)  # fmt: skip


def check_model(model: ModelShape) -> None:
    """Raise `CostError` for a shape that no transformer has."""
    _one_of("model.family", model.family, FAMILIES)
    for name, (least, most) in SHAPE_RANGES.items():
        _whole(f"model.{name}", getattr(model, name), least, most)
    _one_of("model.dtype_bytes", model.dtype_bytes, DTYPE_BYTES)
    _positive("model.rope_theta", model.rope_theta, math.inf)
    _positive("model.norm_eps", model.norm_eps, 1.0)
    if model.heads % model.kv_heads:
        raise CostError(
            f"model.kv_heads must divide the {model.heads} of model.heads, got {model.kv_heads}"
        )
    if model.active_experts > model.experts:
        raise CostError(
            f"model.active_experts must be at most model.experts={model.experts}, "
            f"got {model.active_experts}"
        )


def check_hardware(hardware: HardwareSpec) -> None:
    """Raise `CostError` for a GPU that there cannot be."""
    for name in HARDWARE_POSITIVE:
        _positive(f"hardware.{name}", getattr(hardware, name), MOST)
    for name in HARDWARE_SHARES:
        _positive(f"hardware.{name}", getattr(hardware, name), 1.0)
    for name in HARDWARE_TIMES:
        _at_least_zero(f"hardware.{name}", getattr(hardware, name), MOST)
    _whole("hardware.count", hardware.count, 1, MOST_GPUS)


def check_memory(memory: MemorySpec) -> None:
    """Raise `CostError` for a server that keeps less than nothing, or without end."""
    _one_of("memory.logits_of", memory.logits_of, LOGITS_OF)
    _at_least_zero("memory.logit_bytes", memory.logit_bytes, MOST)
    for name in MEMORY_GIB:
        value = getattr(memory, name)
        if value is not None:
            _at_least_zero(f"memory.{name}", value, MOST)


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise CostError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def _whole(name: str, value: int, least: int, most: int) -> None:
    if value < least:
        raise CostError(f"{name} must be at least {least}, got {value}")
    if value > most:
        raise CostError(f"{name} must be at most {most}, got {value}")


def _positive(name: str, value: float, most: float) -> None:
    """Not written as `value <= 0`: nan is neither."""
    if not 0 < value <= most or math.isinf(value):
        bound = "" if math.isinf(most) else f" and at most {most:g}"
        raise CostError(f"{name} must be a positive number{bound}, got {value}")


def _at_least_zero(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise CostError(f"{name} must be at least 0 and at most {most:g}, got {value}")
