"""Back end `triton`: decode and prefill by the kernels of `triton_decode` and `triton_prefill`."""

from __future__ import annotations

from kernels.triton_decode import decode
from kernels.triton_prefill import prefill

__all__ = ["decode", "prefill"]
