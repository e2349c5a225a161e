"""The oracle: gather each row's KV and compute attention as it is defined.

Slow and plain on purpose.  Computes in float64 for float64 inputs, otherwise in float32.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from kernels.rows import Rows, as_pages


def gather(cache: torch.Tensor, rows: Rows, row: int) -> torch.Tensor:
    """Return the KV of one row in order of position, [length, kv_heads, head_dim]; a copy."""
    view = as_pages(cache, rows.page_tokens)
    length = int(rows.lengths[row])
    at = rows.offset[row] + torch.arange(length, device=cache.device)
    page = rows.table[row].long()[at // rows.page_tokens]
    return view[page, at % rows.page_tokens]


def prefill(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    rows: Rows,
    scale: float,
    out: torch.Tensor,
) -> torch.Tensor:
    work = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k_cache.shape[-2]
    starts = rows.starts.tolist()
    for row, (first, last) in enumerate(pairwise(starts)):
        k = gather(k_cache, rows, row).to(work).repeat_interleave(group, dim=1)  # [L, Hq, D]
        v = gather(v_cache, rows, row).to(work).repeat_interleave(group, dim=1)
        new = q[first:last].to(work)  # [N, Hq, D]
        scores = torch.einsum("nhd,lhd->hnl", new, k) * scale
        length, queries = k.shape[0], last - first
        position = torch.arange(length - queries, length, device=q.device)
        future = torch.arange(length, device=q.device) > position[:, None]  # [N, L]
        scores.masked_fill_(future, float("-inf"))
        out[first:last] = torch.einsum("hnl,lhd->nhd", scores.softmax(-1), v).to(q.dtype)
    return out


decode = prefill  # one query a row is the case of a single new token
