"""Writing KV into a cache, reading it back, and moving slots within it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from allocators.base import IntArray, Unsupported
from kernels.registry import HEAD_DIMS, probe

Index = tuple[torch.Tensor, ...]


def store(
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    slots: torch.Tensor | IntArray,
    *,
    writers: torch.Tensor | None = None,
    backend: str = "reference",
) -> None:
    """Write new keys and values, [T, kv_heads, head_dim], to `slots` [T] of the caches.

    Slots are those of the layout (`new_slots`), each at most once, or with the same token:
    `writers[i]` (int64 [T]) is the one that is written to `slots[i]`, i without it.  `backend` is
    "triton" or any other name, which means torch.  Raises `Unsupported` as `decode` does.
    """
    slots = torch.as_tensor(slots, dtype=torch.int64, device=k_cache.device)
    if backend == "triton":
        kernels = _triton(k_cache)
        kernels.store(k, v, k_cache, v_cache, slots, writers)
        return
    if writers is not None:
        k, v = k[writers], v[writers]
    k_cache[_index(k_cache, slots)] = k
    v_cache[_index(v_cache, slots)] = v


def load(cache: torch.Tensor, slots: torch.Tensor | IntArray) -> torch.Tensor:
    """Return a copy of `slots`, [T, kv_heads, head_dim], on the cache's device."""
    slots = torch.as_tensor(slots, dtype=torch.int64, device=cache.device)
    return cache[_index(cache, slots)]


def copy_slots(
    caches: Sequence[torch.Tensor], copies: IntArray, *, backend: str = "reference"
) -> None:
    """Execute copies (source slot, destination slot, slots), [C, 3], in every cache.

    All sources are read before any destination is written, so rows may swap places (a beam step
    does).  All caches have the same shape.  Raises `Unsupported` as `decode` does.
    """
    if not len(copies) or not len(caches):
        return
    source, target = expand(copies)
    device = caches[0].device
    if backend == "triton":
        kernels = _triton(caches[0])
        kernels.copy_slots(caches, source, target)
        return
    read = _index(caches[0], torch.as_tensor(source, device=device))
    write = _index(caches[0], torch.as_tensor(target, device=device))
    for cache in caches:
        # Indexing on the right is a gather into new memory: that is what makes it simultaneous.
        cache[write] = cache[read]


def expand(copies: IntArray) -> tuple[IntArray, IntArray]:
    """Return the source and the destination of each single slot of `copies`."""
    source, target, n = np.asarray(copies, dtype=np.int64).T
    each = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
    return np.repeat(source, n) + each, np.repeat(target, n) + each


def _index(cache: torch.Tensor, slots: torch.Tensor) -> Index:
    if cache.dim() == 3:
        return (slots,)
    return (slots // cache.shape[1], slots % cache.shape[1])


def _triton(cache: torch.Tensor):  # noqa: ANN202 - the module, imported only where it can run
    # A head of any size is moved; only attention has a list of them.
    support = probe("triton", cache.device.type, str(cache.dtype), HEAD_DIMS[0], None)
    if not support.ok:
        raise Unsupported(f"triton: {support.reason}")
    from kernels import triton_cache

    return triton_cache
