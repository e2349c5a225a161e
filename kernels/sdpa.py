"""Back end `sdpa`: torch's scaled_dot_product_attention over contiguous rows, without a copy.

Rows and lengths are taken from the host's copy, so that no call waits for the device.  Causality is
said and not drawn as a mask: with a mask, or with grouped heads and a mask, torch's flash kernel
does not apply, and this would be a slower baseline than torch is.  Only a prefill through a window
is drawn: there is no other way to say it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from kernels.batch import Batch
from kernels.rows import Rows, known


def contiguous_row(pages: torch.Tensor, rows: Rows, row: int) -> torch.Tensor:
    """View one row in place, [length, kv_heads, head_dim]."""
    host = known(rows)
    page, offset = divmod(int(host.first[row]), rows.page_tokens)
    return pages[page, offset : offset + int(host.lengths[row])]


def prefill(batch: Batch) -> None:
    batch = batch.narrowed()
    q, rows, scale, out = batch.q, batch.rows, batch.scale, batch.out
    kv_heads, dim = batch.keys.shape[-2:]
    host = known(rows)
    for row, (first, last) in enumerate(pairwise(host.starts.tolist())):
        new = last - first
        k = contiguous_row(batch.keys, rows, row).transpose(0, 1)[None]  # [1, Hkv, L, D]
        v = contiguous_row(batch.values, rows, row).transpose(0, 1)[None]
        if new == 1:
            # The query heads of a group are queries at the same position: KV is read once.
            folded = q[first].view(1, kv_heads, -1, dim)
            out[first] = scaled_dot_product_attention(folded, k, v, scale=scale).view(-1, dim)
            continue
        heads = q[first:last].transpose(0, 1)[None]  # [1, Hq, N, D]
        # The last query sees all keys; torch's own `is_causal` lets the first see one.
        length, mask = k.shape[2], None
        if batch.window is not None and batch.window < length:
            mask = band(new, length, batch.window, q.device)
        elif new < length:
            mask = causal_lower_right(new, length)
        found = scaled_dot_product_attention(
            heads,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=heads.shape[1] != kv_heads,
        )
        out[first:last] = found[0].transpose(0, 1)


def band(queries: int, length: int, window: int, device: torch.device) -> torch.Tensor:
    """What each of a row's last queries sees through a window, bool [queries, length]."""
    every = torch.ones((queries, length), dtype=torch.bool, device=device)
    last = length - queries
    return every.tril(last).triu(last - window + 1)


def decode(batch: Batch) -> None:
    """One call if all rows are equally long and equally far apart, else one a row."""
    batch = batch.narrowed()
    host = known(batch.rows)
    steps = np.unique(np.diff(host.first))
    even = len(np.unique(host.lengths)) == 1 and len(steps) < 2 and batch.keys.shape[0] == 1
    if not even or (len(steps) and steps[0] < 0):
        prefill(batch)
        return
    count, length = len(host.lengths), int(host.lengths[0])
    step, base = int(steps[0]) if len(steps) else 0, int(host.first[0])

    def stacked(pages: torch.Tensor) -> torch.Tensor:
        """View all rows, [S, Hkv, L, D]."""
        _, _, heads, dim = pages.shape
        _, token, head, _ = pages.stride()
        first = pages.storage_offset() + base * token
        return pages.as_strided((count, heads, length, dim), (step * token, head, token, 1), first)

    folded = batch.q.unflatten(1, (batch.kv_heads, -1))  # [S, Hkv, G, D]
    k, v = stacked(batch.keys), stacked(batch.values)
    found = scaled_dot_product_attention(folded, k, v, scale=batch.scale)
    batch.out.copy_(found.flatten(1, 2))
