"""What the options of a real run mean on this machine, and whether its memory suffices."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from harness.cost.parameters import weight_bytes
from harness.cost.shapes import ModelShape
from harness.errors import ConfigError
from harness.executors.model.decoder import check_decodable, shape_of_checkpoint
from harness.executors.spec import (
    DEVICES,
    DTYPES,
    HANDLES,
    MODES,
    PACKINGS,
    ExecutorSpec,
)
from kernels import BACKENDS
from kernels.support import installed

MIB, GIB = 2**20, 2**30
#: share of a GPU's free memory that the KV pool may take when nothing else is said; activations,
#: logits and captured graphs live in the rest
POOL_SHARE = 0.8


def settle(spec: ExecutorSpec, model: ModelShape) -> ModelShape:
    """Replace `auto` by what it is on this machine; return the shape that will be run.

    The shape is that of the checkpoint if there is one, and its `dtype_bytes` those of the type.
    Raises `ConfigError`.
    """
    for name, allowed in (
        ("device", DEVICES),
        ("dtype", DTYPES),
        ("backend", ("auto", *BACKENDS)),
        ("memory", MODES),
        ("packing", PACKINGS),
        ("handles", HANDLES),
    ):
        if getattr(spec, name) not in allowed:
            raise ConfigError(
                f"executor.{name} must be one of {', '.join(allowed)}, got {getattr(spec, name)!r}"
            )
    if spec.max_requests is not None and spec.max_requests < 1:
        raise ConfigError(f"executor.max_requests must be at least 1, got {spec.max_requests}")
    if spec.pool_mib is not None and not 0 < spec.pool_mib < float("inf"):
        raise ConfigError(f"executor.pool_mib must be a positive number, got {spec.pool_mib}")
    if spec.weights is not None:
        if not Path(spec.weights).is_dir():
            raise ConfigError(
                f"executor.weights={spec.weights} is no directory; expected a local one with "
                "config.json and *.safetensors (nothing is downloaded)"
            )
        model = replace(shape_of_checkpoint(Path(spec.weights)), kv_dtype=model.kv_dtype)
    check_decodable(model)
    if spec.device == "auto":
        spec.device = "cuda" if torch.cuda.is_available() else "cpu"
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("executor.device=cuda, but torch sees no CUDA device here")
    on_cpu = spec.device == "cpu"
    if spec.dtype == "auto":
        spec.dtype = "float32" if on_cpu or model.dtype_bytes == 4 else "bfloat16"
    if spec.backend == "auto":
        # Without Numba a CPU is there to try the chain, which the oracle does as well.
        spec.backend = "triton" if not on_cpu else "cpu" if installed("numba") else "reference"
    if spec.handles == "auto":
        # Physical memory goes from one layer group to another, whose page-groups have other sizes.
        spec.handles = "on_demand" if on_cpu or model.layer_groups else "ahead"
    if spec.batch_invariant is None:
        spec.batch_invariant = spec.dtype == "float32"
    model = replace(model, dtype_bytes=getattr(torch, spec.dtype).itemsize)
    needed, free = weight_bytes(model), free_bytes(spec.device)
    if needed > free:
        raise ConfigError(
            f"{model.name} in {spec.dtype} needs {needed / GIB:.1f} GiB for its weights, "
            f"{spec.device} has {free / GIB:.1f} GiB free: choose a smaller model "
            "(model=llama-tiny) or executor.dtype=bfloat16"
        )
    if spec.pool_mib is None and not on_cpu:
        # Settled once: the weights are not loaded yet, and each allocator is to get the same.
        spec.pool_mib = _left_for_kv(needed, free) / MIB
    return model


def check_pool(spec: ExecutorSpec, model: ModelShape, pool_bytes: int) -> None:
    """Raise `ConfigError` if the device has no room for this much KV beside the weights."""
    room = free_bytes(spec.device) - weight_bytes(model)
    if pool_bytes > room:
        raise ConfigError(
            f"the KV pool of {pool_bytes / GIB:.1f} GiB does not fit: {spec.device} has "
            f"{room / GIB:.1f} GiB left beside the weights of {model.name}"
        )


def free_bytes(device: str) -> int:
    """Return the memory that is free on a device, as the system counts it."""
    if device == "cuda":
        torch.cuda.empty_cache()  # what a run before this one has given back to torch only
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def _left_for_kv(needed: int, free: int) -> float:
    left = free * POOL_SHARE - needed
    if left <= 0:
        raise ConfigError(
            f"the weights take {needed / GIB:.1f} GiB of the GPU's free {free / GIB:.1f} GiB: "
            "nothing is left for the KV cache"
        )
    return left


def described(spec: ExecutorSpec, model: ModelShape) -> dict[str, Any]:
    """Return what was really run, for the record of the run."""
    return {"executor": asdict(spec), "model": asdict(model)}
