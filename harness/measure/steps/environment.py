"""The environment of every record; and the step of that name: which back end runs here."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from harness.measure.job import Job
from harness.results.environment import describe_environment, installed_version
from kernels import BACKENDS, probe

#: versions that decide what a GPU does, beside those of every run
PACKAGES = ("torch", "triton", "numba", "cuda-bindings", "flash-attn", "flash-attn-3")
DTYPES = {"cuda": ("float32", "float16", "bfloat16"), "cpu": ("float32",)}
PAGE_TOKENS = (1, 16, 256, None)
HEAD_DIM = 128


def run(job: Job) -> None:
    """Fill `results.attention`, a row for each back end, type and page."""
    rows = []
    for backend, dtype, page in product(BACKENDS, DTYPES[job.device.type], PAGE_TOKENS):
        answer = probe(backend, job.device.type, dtype, HEAD_DIM, page)
        row = {"backend": backend, "dtype": dtype, "page_tokens": page}
        rows.append({**row, "ok": answer.ok, "reason": answer.reason})
    job.results["attention"] = {"head_dim": HEAD_DIM, "rows": rows}


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
