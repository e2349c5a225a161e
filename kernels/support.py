"""Which back end can do what, with a reason where it cannot.

A pair that is not supported is an answer (a row `unsupported` in a comparison), never a silent
fall-back to another kernel.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

#: the tested head sizes; kernels pad them to a power of two where they must
HEAD_DIMS = (64, 80, 96, 128, 256)
DTYPES = ("float32", "float16", "bfloat16")
MODES = ("decode", "prefill")
#: pages that FlashAttention 2 takes are multiples of this
FA2_PAGE_TOKENS = 256
#: largest page of our Triton kernels, and of the paged allocator
MOST_PAGE_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Support:
    """The answer of a probe; `reason` says why not and is empty if `ok`."""

    ok: bool
    reason: str = ""


YES = Support(True)


def no(reason: str) -> Support:
    return Support(False, reason)


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _reference(device: str, dtype: str, head_dim: int, page_tokens: int | None) -> Support:
    return YES


def _cpu(device: str, dtype: str, head_dim: int, page_tokens: int | None) -> Support:
    if device != "cpu":
        return no(f"the compiled CPU kernel cannot read memory of {device}")
    return YES if installed("numba") else no("numba is not installed")


def _sdpa(device: str, dtype: str, head_dim: int, page_tokens: int | None) -> Support:
    if page_tokens is not None:
        return no("scaled_dot_product_attention reads contiguous rows, not pages")
    return YES


def _triton(device: str, dtype: str, head_dim: int, page_tokens: int | None) -> Support:
    if not installed("triton"):
        return no("triton is not installed")
    from triton import knobs

    if device != "cuda" and not knobs.runtime.interpret:
        return no("triton needs a CUDA device, or its interpreter (TRITON_INTERPRET=1)")
    return YES


def _flash(device: str, dtype: str, head_dim: int, page_tokens: int | None) -> Support:
    if dtype == "float32":
        return no("flash kernels compute in float16 and bfloat16 only")
    if device != "cuda":
        return no(f"flash kernels run on CUDA devices, not on {device}")
    from kernels.flash import find

    return find(dtype, head_dim, page_tokens)[1]


PROBES: dict[str, Callable[[str, str, int, int | None], Support]] = {
    "reference": _reference,
    "cpu": _cpu,
    "triton": _triton,
    "flash": _flash,
    "sdpa": _sdpa,
}
BACKENDS = tuple(PROBES)


def probe(
    backend: str,
    device: str,
    dtype: str,
    head_dim: int,
    page_tokens: int | None,
    mode: str = "decode",
) -> Support:
    """Say whether `backend` can run `mode` ("decode" or "prefill") here.

    `device` is "cpu" or "cuda" (an index may follow), `dtype` a torch name such as "bfloat16",
    `page_tokens` the tokens of a page, or None for rows that are contiguous.  No back end answers
    differently for the two modes at present.  Raises `ValueError` for a back end or mode that does
    not exist.
    """
    if backend not in PROBES:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    kind = str(dtype).removeprefix("torch.")
    return _probe(backend, str(device).split(":")[0], kind, head_dim, page_tokens)


@lru_cache(maxsize=256)
def _probe(
    backend: str, device: str, dtype: str, head_dim: int, page_tokens: int | None
) -> Support:
    types = (*DTYPES, "float64") if backend in ("reference", "sdpa") else DTYPES
    if dtype not in types:
        return no(f"{backend} computes in {', '.join(types)}, not in {dtype}")
    if backend in ("triton", "flash"):
        if head_dim not in HEAD_DIMS:
            return no(f"{backend} has head sizes {', '.join(map(str, HEAD_DIMS))}, not {head_dim}")
        if backend == "triton" and page_tokens is not None and page_tokens > MOST_PAGE_TOKENS:
            return no(f"{backend} has pages of 1 to {MOST_PAGE_TOKENS} tokens, not {page_tokens}")
    if not installed("torch"):
        return no("torch is not installed")
    if device == "cuda" and not _cuda_available():
        return no("torch sees no CUDA device")
    return PROBES[backend](device, dtype, head_dim, page_tokens)


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
