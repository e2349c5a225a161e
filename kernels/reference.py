"""The oracle: gather each row's KV and compute attention as it is defined.

Slow and plain on purpose.  Computes in float64 for float64 inputs, otherwise in float32.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from kernels.batch import Batch
from kernels.rows import Rows


def gather(pages: torch.Tensor, rows: Rows, row: int) -> torch.Tensor:
    """Return the KV of one row in order of position, [length, kv_heads, head_dim]; a copy."""
    length = int(rows.lengths[row])
    at = rows.offset[row] + torch.arange(length, device=pages.device)
    page = rows.table[row].long()[at // rows.page_tokens]
    return pages[page, at % rows.page_tokens]


def prefill(batch: Batch) -> None:
    batch = batch.narrowed()
    q, rows, group = batch.q, batch.rows, batch.group
    work = torch.float64 if q.dtype == torch.float64 else torch.float32
    starts = rows.starts.tolist()
    for row, (first, last) in enumerate(pairwise(starts)):
        k = gather(batch.keys, rows, row).to(work).repeat_interleave(group, dim=1)  # [L, Hq, D]
        v = gather(batch.values, rows, row).to(work).repeat_interleave(group, dim=1)
        new = q[first:last].to(work)  # [N, Hq, D]
        scores = torch.einsum("nhd,lhd->hnl", new, k) * batch.scale
        length, queries = k.shape[0], last - first
        position = torch.arange(length - queries, length, device=q.device)
        ahead = torch.arange(length, device=q.device) - position[:, None]  # [N, L]
        scores.masked_fill_(ahead > 0, float("-inf"))
        if batch.window is not None:
            scores.masked_fill_(ahead <= -batch.window, float("-inf"))
        if batch.sinks is not None:
            sinks = batch.sinks.to(work)[:, None, None].expand(-1, queries, 1)
            scores = torch.cat([scores, sinks], dim=-1)
        weights = scores.softmax(-1)[..., :length]
        batch.out[first:last] = torch.einsum("hnl,lhd->nhd", weights, v).to(q.dtype)


decode = prefill  # one query a row is the case of a single new token
