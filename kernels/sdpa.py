"""Back end `sdpa`: torch's scaled_dot_product_attention over contiguous rows, without a copy."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels.batch import Batch
from kernels.rows import Rows


def contiguous_row(pages: torch.Tensor, rows: Rows, row: int) -> torch.Tensor:
    """View one row in place, [length, kv_heads, head_dim]."""
    offset, length = int(rows.offset[row]), int(rows.lengths[row])
    page = pages[int(rows.table[row, offset // rows.page_tokens])]
    return page[offset : offset + length]


def prefill(batch: Batch) -> None:
    q, rows, scale, out = batch.q, batch.rows, batch.scale, batch.out
    kv_heads, dim = batch.keys.shape[-2:]
    starts = rows.starts.tolist()
    for row, (first, last) in enumerate(pairwise(starts)):
        k = contiguous_row(batch.keys, rows, row).transpose(0, 1)[None]  # [1, Hkv, L, D]
        v = contiguous_row(batch.values, rows, row).transpose(0, 1)[None]
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


def decode(batch: Batch) -> None:
    """One call if all rows are equally long and equally far apart, else one a row."""
    rows = batch.rows
    base = (rows.table[:, 0].long() * rows.page_tokens + rows.offset).tolist()
    lengths, step = rows.lengths.tolist(), (base[1] - base[0] if len(base) > 1 else 0)
    even = len(set(lengths)) == 1 and step >= 0 and batch.keys.shape[0] == 1
    if not even or any(b - a != step for a, b in pairwise(base)):
        prefill(batch)
        return

    def stacked(pages: torch.Tensor) -> torch.Tensor:
        """View all rows, [S, Hkv, L, D]."""
        _, _, heads, dim = pages.shape
        _, token, head, _ = pages.stride()
        first = pages.storage_offset() + base[0] * token
        size = (len(base), heads, lengths[0], dim)
        return pages.as_strided(size, (step * token, head, token, 1), first)

    folded = batch.q.unflatten(1, (batch.kv_heads, -1))  # [S, Hkv, G, D]
    k, v = stacked(batch.keys), stacked(batch.values)
    found = scaled_dot_product_attention(folded, k, v, scale=batch.scale)
    batch.out.copy_(found.flatten(1, 2))
