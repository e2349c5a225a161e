"""Measured batches of attention: where their rows lie in memory, and a call over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from allocators.base import BlockTable, IntArray, Strided
from kernels import place, prefill


def shuffled(lengths: IntArray, page_tokens: int, order: IntArray) -> BlockTable:
    """Give each row its pages in `order`, as a pool in use has them; -1 stands behind its end."""
    pages = -(-lengths // page_tokens)
    table = np.full((len(lengths), int(pages.max())), -1, dtype=np.int64)
    table[np.arange(table.shape[1]) < pages[:, None]] = order[: pages.sum()]
    return BlockTable(page_tokens, table, lengths)


def side_by_side(lengths: IntArray, page_tokens: int = 1) -> Strided:
    """Give each row an extent of its own, in whole pages."""
    extents = -(-lengths // page_tokens) * page_tokens
    return Strided(np.cumsum(extents) - extents, lengths)


def fits(slots: int, rows: int, length: int, page_tokens: int = 1) -> bool:
    """Say whether so many rows of one length, each in whole pages, have room in `slots`."""
    return rows * -(-length // page_tokens) * page_tokens <= slots


def attention_call(
    kernel: Callable[..., torch.Tensor],
    heads: int,
    caches: tuple[torch.Tensor, torch.Tensor],
    layout: BlockTable | Strided,
    new: IntArray,
    backend: str,
    window: int | None = None,
    sinks: bool = False,
) -> Callable[[], Any]:
    """Return a call of `kernel` (`decode` or `prefill`) with random queries, `new` [S] a row.

    With `sinks` each head has a random one.
    """
    keys, values = caches
    rows, dim = place(layout, keys, new), keys.shape[-1]
    q = torch.randn((int(new.sum()), heads, dim), dtype=keys.dtype, device=keys.device)
    options = {"backend": backend, "out": torch.empty_like(q), "window": window}
    options["sinks"] = torch.randn_like(q[0, :, 0]) if sinks else None
    more = (None,) if kernel is prefill else ()
    return lambda: kernel(q, keys, values, rows, *more, dim**-0.5, **options)
