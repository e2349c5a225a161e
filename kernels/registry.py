"""The back ends by name: where each is, and which of them can do what.

A pair that is not supported is an answer (a row `unsupported` in a comparison), never a silent
fall-back to another kernel.  Asking imports a back end only where its answer needs a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from allocators.base import one_of
from kernels.support import YES, Support, installed, no

DTYPES = ("float32", "float16", "bfloat16")
#: the tested head sizes; kernels pad them to a power of two where they must
HEAD_DIMS = (64, 80, 96, 128, 256)
#: largest page of our Triton kernels, and of the paged allocator
MOST_PAGE_TOKENS = 512

#: (device, type, head size, page or None, with a window) -> whether that can be computed here
Check = Callable[[str, str, int, int | None, bool], Support]


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation of attention; None: no limit.

    `module` has `decode` and `prefill`, each of one `kernels.batch.Batch`; `sinks` says whether
    they take attention sinks.
    """

    module: str
    check: Check
    dtypes: tuple[str, ...] = DTYPES
    head_dims: tuple[int, ...] | None = None
    most_page_tokens: int | None = None
    sinks: bool = False


def _reference(
    device: str, dtype: str, head_dim: int, page_tokens: int | None, windowed: bool
) -> Support:
    return YES


def _cpu(
    device: str, dtype: str, head_dim: int, page_tokens: int | None, windowed: bool
) -> Support:
    if device != "cpu":
        return no(f"the compiled CPU kernel cannot read memory of {device}")
    return YES if installed("numba") else no("numba is not installed")


def _triton(
    device: str, dtype: str, head_dim: int, page_tokens: int | None, windowed: bool
) -> Support:
    if not installed("triton"):
        return no("triton is not installed")
    from triton import knobs

    if device != "cuda" and not knobs.runtime.interpret:
        return no("triton needs a CUDA device, or its interpreter (TRITON_INTERPRET=1)")
    return YES


def _flash(
    device: str, dtype: str, head_dim: int, page_tokens: int | None, windowed: bool
) -> Support:
    if dtype == "float32":
        return no("flash kernels compute in float16 and bfloat16 only")
    if device != "cuda":
        return no(f"flash kernels run on CUDA devices, not on {device}")
    from kernels.flash import find

    return find(dtype, head_dim, page_tokens, windowed=windowed)[1]


def _sdpa(
    device: str, dtype: str, head_dim: int, page_tokens: int | None, windowed: bool
) -> Support:
    if page_tokens is not None:
        return no("scaled_dot_product_attention reads contiguous rows, not pages")
    return YES


REGISTRY = {
    "reference": Backend("kernels.reference", _reference, (*DTYPES, "float64"), sinks=True),
    "cpu": Backend("kernels.cpu", _cpu, sinks=True),
    "triton": Backend(
        "kernels.triton_attention",
        _triton,
        head_dims=HEAD_DIMS,
        most_page_tokens=MOST_PAGE_TOKENS,
        sinks=True,
    ),
    "flash": Backend("kernels.flash", _flash, head_dims=HEAD_DIMS),
    "sdpa": Backend("kernels.sdpa", _sdpa, (*DTYPES, "float64")),
}
BACKENDS = tuple(REGISTRY)


def probe(
    backend: str,
    device: str,
    dtype: str,
    head_dim: int,
    page_tokens: int | None,
    window: int | None = None,
) -> Support:
    """Say whether `backend` can decode and prefill here.

    `device` is "cpu" or "cuda" (an index may follow), `dtype` a torch name such as "bfloat16",
    `page_tokens` the tokens of a page, or None for rows that are contiguous, `window` the positions
    that a query reads, or None for all.  Raises `ValueError` for a back end that does not exist.
    """
    one_of("backend", backend, BACKENDS)
    kind = str(dtype).removeprefix("torch.")
    return _probe(
        backend, str(device).split(":")[0], kind, head_dim, page_tokens, window is not None
    )


@lru_cache(maxsize=256)
def _probe(
    name: str, device: str, dtype: str, head_dim: int, page_tokens: int | None, windowed: bool
) -> Support:
    backend = REGISTRY[name]
    if dtype not in backend.dtypes:
        return no(f"{name} computes in {', '.join(backend.dtypes)}, not in {dtype}")
    if backend.head_dims is not None and head_dim not in backend.head_dims:
        sizes = ", ".join(map(str, backend.head_dims))
        return no(f"{name} has head sizes {sizes}, not {head_dim}")
    most = backend.most_page_tokens
    if most is not None and page_tokens is not None and page_tokens > most:
        return no(f"{name} has pages of 1 to {most} tokens, not {page_tokens}")
    if not installed("torch"):
        return no("torch is not installed")
    if device == "cuda" and not _cuda_available():
        return no("torch sees no CUDA device")
    return backend.check(device, dtype, head_dim, page_tokens, windowed)


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
