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
    blocks, constants = _blocks(*keys.shape[-2:], k.element_size())
    store_slots[(len(slots), blocks)](
        k, v, *anchored(keys), *anchored(values), slots, writers,
        *k.stride()[:2], *v.stride()[:2], *keys.stride()[:3], *values.stride()[:3],
        keys.shape[1], values.shape[1],
        **constants,
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
    blocks, constants = _blocks(heads, dim, target.element_size())
    move_slots[(len(source_slots), blocks)](
        *anchored(read), *anchored(write), source_slots, target_slots,
        *read.stride()[:3], *write.stride()[:3], read.shape[1], write.shape[1],
        **constants,
    )  # fmt: skip


def _blocks(heads: int, dim: int, itemsize: int) -> tuple[int, dict[str, int]]:
    """Return the blocks of a token's numbers, and what the compiler knows of them."""
    numbers = heads * dim
    block = min(BLOCK, triton.next_power_of_2(numbers))
    warps = max(1, min(MOST_WARPS, block * itemsize // WARP_BYTES))
    known = {"NUMBERS": numbers, "DIM": dim, "BLOCK": block, "num_warps": warps}
    return triton.cdiv(numbers, block), known


def _paged(cache: torch.Tensor) -> torch.Tensor:
    return cache if cache.dim() == 4 else as_pages(cache, None)
