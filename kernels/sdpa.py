"""Back end `sdpa`: torch's scaled_dot_product_attention over contiguous rows, without a copy."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch.nn.functional import scaled_dot_product_attention

from allocators.base import Unsupported
from kernels.rows import Rows, as_pages


def contiguous_row(cache: torch.Tensor, rows: Rows, row: int) -> torch.Tensor:
    """View one row in place, [length, kv_heads, head_dim]."""
    offset, length = int(rows.offset[row]), int(rows.lengths[row])
    page = as_pages(cache, rows.page_tokens)[int(rows.table[row, offset // rows.page_tokens])]
    return page[offset : offset + length]


def prefill(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    rows: Rows,
    scale: float,
    out: torch.Tensor,
) -> torch.Tensor:
    _refuse_pages(rows)
    kv_heads, dim = k_cache.shape[-2:]
    starts = rows.starts.tolist()
    for row, (first, last) in enumerate(pairwise(starts)):
        k = contiguous_row(k_cache, rows, row).transpose(0, 1)[None]  # [1, Hkv, L, D]
        v = contiguous_row(v_cache, rows, row).transpose(0, 1)[None]
        new, length = last - first, k.shape[2]
        if new == 1:
            # The query heads of a group are queries at the same position: KV is read once.
            folded = q[first].view(1, kv_heads, -1, dim)
            out[first] = scaled_dot_product_attention(folded, k, v, scale=scale).view(-1, dim)
            continue
        position = torch.arange(length - new, length, device=q.device)
        seen = torch.arange(length, device=q.device) <= position[:, None]  # [N, L]
        heads = q[first:last].transpose(0, 1)[None]  # [1, Hq, N, D]
        found = scaled_dot_product_attention(
            heads, k, v, attn_mask=seen, scale=scale, enable_gqa=heads.shape[1] != kv_heads
        )
        out[first:last] = found[0].transpose(0, 1)
    return out


def decode(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    rows: Rows,
    scale: float,
    out: torch.Tensor,
) -> torch.Tensor:
    """One call if all rows are equally long and equally far apart, else one a row."""
    _refuse_pages(rows)
    base = (rows.table[:, 0].long() * rows.page_tokens + rows.offset).tolist()
    lengths, step = rows.lengths.tolist(), (base[1] - base[0] if len(base) > 1 else 0)
    k, v = as_pages(k_cache, rows.page_tokens), as_pages(v_cache, rows.page_tokens)
    even = len(set(lengths)) == 1 and step >= 0 and k.shape[0] == 1
    if not even or any(b - a != step for a, b in pairwise(base)):
        return prefill(q, k_cache, v_cache, rows, scale, out)

    def batch(cache: torch.Tensor) -> torch.Tensor:
        _, _, heads, dim = cache.shape
        _, token, head, _ = cache.stride()
        first = cache.storage_offset() + base[0] * token
        size = (len(base), heads, lengths[0], dim)
        return cache.as_strided(size, (step * token, head, token, 1), first)

    folded = q.unflatten(1, (k.shape[2], -1))  # [S, Hkv, G, D]
    found = scaled_dot_product_attention(folded, batch(k), batch(v), scale=scale)
    return out.copy_(found.flatten(1, 2))


def _refuse_pages(rows: Rows) -> None:
    if not rows.contiguous:
        raise Unsupported("sdpa reads contiguous rows, not pages")
