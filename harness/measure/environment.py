"""Where a measurement was made, and the step that records what can be measured there."""

from __future__ import annotations

import subprocess
from importlib import metadata
from typing import Any

import torch

from harness.measure.job import Job
from harness.results import describe_environment
from kernels import BACKENDS, probe

#: versions that decide what a GPU does, beside those of every run
PACKAGES = ("torch", "triton", "numba", "cuda-bindings", "flash-attn", "flash-attn-3")
DTYPES = {"cuda": ("float32", "float16", "bfloat16"), "cpu": ("float32",)}
PAGES = (1, 16, 256, None)
HEAD_DIM = 128


def describe(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """Return the environment of every record of this run; names no host, person or path."""
    found = describe_environment()
    if found["git"] is None and commit:
        found["git"] = {"commit": commit, "dirty": None}
    found["torch_threads"] = torch.get_num_threads()
    found["versions"] = {name: _version(name) for name in PACKAGES}
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
    """Return the version of the GPU's driver as nvidia-smi gives it."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def run(job: Job) -> None:
    """Record which attention back end can do what here, with the reason where it cannot."""
    rows = []
    for backend in BACKENDS:
        for dtype in DTYPES[job.device.type]:
            for page in PAGES:
                answer = probe(backend, job.device.type, dtype, HEAD_DIM, page)
                rows.append(
                    {
                        "backend": backend,
                        "dtype": dtype,
                        "page_tokens": page,
                        "ok": answer.ok,
                        "reason": answer.reason,
                    }
                )
    job.results["attention"] = {"head_dim": HEAD_DIM, "rows": rows}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
