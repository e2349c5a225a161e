"""Decode and prefill attention over a layout, through one of the back ends.

Both compute, for a query at position p of its row and the positions j <= p of that row,

    out = sum_j softmax_j(scale * q . k_j) v_j

with grouped queries: query head h reads KV head h // (query_heads / kv_heads).  With a window w
only the last w positions up to p take part, p among them (Mistral 7B, arXiv 2310.06825, section 2);
what lies behind the windows of all of a row's queries may hold anything (`flash` over pages wants
finite numbers there).

A query head may have a sink, a logit that takes part in the softmax and has no value: its weights
sum to less than 1 (gpt-oss model card, arXiv 2508.10925, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import torch

from allocators.base import IntArray, Layout, Unsupported
from kernels.batch import Batch
from kernels.registry import REGISTRY, probe
from kernels.rows import Rows, place


def decode(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    layout: Layout | Rows,
    scale: float,
    *,
    backend: str = "reference",
    out: torch.Tensor | None = None,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend from the last position of each row to the whole row, or to its last `window`.

    q: [S, query_heads, head_dim]; caches: see `kernels`; returns [S, query_heads, head_dim] (`out`
    if given).  The KV of the last position must already be stored.  Raises `Unsupported` if the
    back end cannot, `ValueError` if shapes disagree.  PagedAttention, section 4.1.
    """
    rows = place(layout, k_cache)
    if q.shape[0] != rows.num_rows or rows.max_queries > 1:
        raise ValueError(f"decode takes one query a row: {q.shape[0]} for {rows.num_rows} rows")
    return _run("decode", backend, q, k_cache, v_cache, rows, scale, out, window, sinks)


def prefill(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    layout: Layout | Rows,
    query_lengths: Sequence[int] | IntArray | None,
    scale: float,
    *,
    backend: str = "reference",
    out: torch.Tensor | None = None,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend causally from the last `query_lengths[i]` positions of each row.

    q: [T, query_heads, head_dim], rows concatenated; `layout.lengths` count past and new tokens, so
    a prompt computed in chunks (Sarathi-Serve, section 4) is the same call with a past.  The new
    tokens' KV must already be stored.  Returns [T, query_heads, head_dim].  With `layout` placed
    before, `query_lengths` is None.  Raises as `decode`.
    """
    rows = place(layout, k_cache, query_lengths)
    return _run("prefill", backend, q, k_cache, v_cache, rows, scale, out, window, sinks)


def _run(
    mode: str,
    backend: str,
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    rows: Rows,
    scale: float,
    out: torch.Tensor | None,
    window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    kv_heads, head_dim = k_cache.shape[-2:]
    if k_cache.shape != v_cache.shape or k_cache.dtype != v_cache.dtype:
        raise ValueError("keys and values have different shapes or types")
    strides = zip(k_cache.shape, k_cache.stride(), v_cache.stride(), strict=True)
    if any(keys != values for size, keys, values in strides if size > 1):
        raise ValueError(f"keys lie {k_cache.stride()} apart and values {v_cache.stride()}")
    if not scale > 0:
        raise ValueError(f"a scale is above 0, not {scale}")
    if q.dim() != 3 or q.shape[-1] != head_dim or q.shape[1] % kv_heads:
        raise ValueError(
            f"q {tuple(q.shape)} does not fit {kv_heads} KV heads of {head_dim}: it is "
            "[tokens, query_heads, head_dim] with query_heads a multiple of kv_heads"
        )
    if q.dtype != k_cache.dtype or q.device != k_cache.device:
        raise ValueError(f"q is {q.dtype} on {q.device}, KV {k_cache.dtype} on {k_cache.device}")
    if window is not None and window < 1:
        raise ValueError(f"a window is 1 position or more, not {window}")
    # Padded ranges are read through a page table, whatever the layout calls itself.
    page = rows.block_tokens if rows.contiguous or rows.block_tokens else rows.page_tokens
    support = probe(backend, q.device.type, str(q.dtype), head_dim, page, window)
    if not support.ok:
        raise Unsupported(f"{backend} {mode}: {support.reason}")
    if sinks is not None and not REGISTRY[backend].sinks:
        able = ", ".join(name for name, found in REGISTRY.items() if found.sinks)
        raise Unsupported(f"{backend} {mode}: attention sinks are computed by {able} alone")
    if sinks is not None and sinks.shape != q.shape[1:2]:
        raise ValueError(f"sinks are {tuple(sinks.shape)}, one for each of {q.shape[1]} heads")
    if out is None:
        out = torch.empty_like(q)
    elif out.shape != q.shape or out.dtype != q.dtype:
        raise ValueError(f"out is {tuple(out.shape)} {out.dtype}, q {tuple(q.shape)} {q.dtype}")
    attend = getattr(import_module(REGISTRY[backend].module), mode)
    attend(Batch.of(q, k_cache, v_cache, rows, scale, out, window, sinks))
    return out
