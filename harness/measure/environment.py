"""Where a measurement was made: a run's environment, and what decides beside it on a GPU."""

from __future__ import annotations

from typing import Any

import torch

from harness.results.environment import describe_environment, installed_version

#: versions that decide what a GPU does, beside those of every run
PACKAGES = ("torch", "triton", "numba", "cuda-bindings", "flash-attn", "flash-attn-3")


def describe(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """Return the environment of every record of this run; names no host, person or path."""
    found = describe_environment()
    if found["git"] is None and commit:
        found["git"] = {"commit": commit, "dirty": None}
    found["torch_threads"] = torch.get_num_threads()
    found["versions"] = {name: installed_version(name) for name in PACKAGES}
    found["accelerator"] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["accelerator"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "l2_bytes": getattr(properties, "L2_cache_size", None),
            "cuda": torch.version.cuda,
            "driver": driver_version(),
            "allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None without a driver or without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
