"""Store and copy of slots through Triton; see `cache` for what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton

from allocators.base import IntArray
from kernels.anchor import anchored
from kernels.rows import as_pages
from kernels.triton_parts import adjacent
from kernels.triton_slots import move_slots, store_slots

#: numbers that one program moves at most, and with how many warps
BLOCK, MOST_WARPS = 1024, 4
#: what a warp loads at once, 16 bytes a thread
WARP_BYTES = 512


def store(
    k: torch.Tensor,
    v: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    slots: torch.Tensor,
    writers: torch.Tensor | None,
) -> None:
    """Write k and v, [T, kv_heads, head_dim], to `slots` [T]: token `writers[i]` to slot i."""
    if not len(slots):
        return
    k, v = adjacent(k), adjacent(v)
    keys, values = _paged(k_cache), _paged(v_cache)
    heads, dim = keys.shape[-2:]
    block = min(BLOCK, triton.next_power_of_2(heads * dim))
    store_slots[(len(slots), triton.cdiv(heads * dim, block))](
        k, v, *anchored(keys), *anchored(values), slots, writers,
        *k.stride()[:2], *v.stride()[:2], *keys.stride()[:3], *values.stride()[:3],
        keys.shape[1], values.shape[1],
        NUMBERS=heads * dim,
        DIM=dim,
        BLOCK=block,
        num_warps=max(1, min(MOST_WARPS, block * k.element_size() // WARP_BYTES)),
    )  # fmt: skip


def copy_slots(caches: Sequence[torch.Tensor], source: IntArray, target: IntArray) -> None:
    """Copy source[i] to target[i] in every cache, through a buffer where the two overlap."""
    device = caches[0].device
    read, write = torch.as_tensor(source, device=device), torch.as_tensor(target, device=device)
    if not np.isin(source, target).any():
        for cache in caches:
            move(cache, read, cache, write)
        return
    each = torch.arange(len(source), device=device)
    buffer = caches[0].new_empty((len(source), *caches[0].shape[-2:]))
    for cache in caches:
        move(cache, read, buffer, each)
        move(buffer, each, cache, write)


def move(
    source: torch.Tensor,
    source_slots: torch.Tensor,
    target: torch.Tensor,
    target_slots: torch.Tensor,
) -> None:
    """Write slots of one cache to slots of another; both may be paged or flat."""
    if not len(source_slots):
        return
    read, write = _paged(source), _paged(target)
    heads, dim = target.shape[-2:]
    whole = heads == 1 or read.stride(-2) == write.stride(-2) == dim
    move_slots[(len(source_slots), triton.cdiv(heads * dim, BLOCK))](
        *anchored(read), *anchored(write), source_slots, target_slots, heads * dim, dim,
        *read.stride()[:3], *write.stride()[:3], read.shape[1], write.shape[1],
        WHOLE=whole,
        BLOCK=BLOCK,
    )  # fmt: skip


def _paged(cache: torch.Tensor) -> torch.Tensor:
    return cache if cache.dim() == 4 else as_pages(cache, None)
