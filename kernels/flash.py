"""Back end `flash`: FlashAttention kernels of torch or of the flash-attn packages, as installed.

Which page sizes, types and head sizes they take depends on the version and on the device, and what
their documentation says is not always what they do.  So each candidate is tried once on a tiny
batch of the very kind and compared with the reference; the reason it failed is the probe's answer.

- `torch`: `torch.nn.attention.varlen.varlen_attn` with `block_table` and `seqused_k`
- `flash_attn_interface`: FlashAttention 3, any page size
- `flash_attn`: FlashAttention 2, pages of a multiple of 256 tokens
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from allocators.base import BlockTable, Strided, Unsupported
from kernels import reference
from kernels.batch import Batch
from kernels.rows import Rows, place
from kernels.support import YES, Support, installed, no

#: computes a batch and returns the result; where that goes is the caller's business
Attend = Callable[[Batch], torch.Tensor]

#: pages that FlashAttention 2 takes are multiples of this
FA2_PAGE_TOKENS = 256

#: what a 16-bit kernel may differ by from float32 in a trial on numbers of about 1
TRIAL_TOLERANCE = 3e-2


def prefill(batch: Batch) -> None:
    q, rows = batch.q, batch.rows
    page = None if is_flat(batch) else rows.page_tokens
    attend, support = find(str(q.dtype).removeprefix("torch."), q.shape[-1], page, q.device.type)
    if attend is None:
        raise Unsupported(f"flash: {support.reason}")
    if page is not None and bool(rows.offset.any()):
        raise Unsupported("flash: a row begins within a page")
    batch.out.copy_(attend(batch))


decode = prefill


def is_flat(batch: Batch) -> bool:
    """Whether the rows lie in one uniform buffer, so that a start and a length describe them."""
    return batch.rows.contiguous and batch.keys.shape[0] == 1


def flat_or_paged(batch: Batch) -> tuple[bool, torch.Tensor, torch.Tensor]:
    """Return whether the rows are flat, and keys and values as [slots, ..] if so, else as pages."""
    if is_flat(batch):
        return True, batch.keys[0], batch.values[0]
    return False, batch.keys, batch.values


# -- candidates ------------------------------------------------------------------------------
def torch_varlen(batch: Batch) -> torch.Tensor:
    """torch >= 2.11 with the flash implementation that is active in it."""
    from torch.nn.attention.varlen import varlen_attn

    rows, (flat, keys, values) = batch.rows, flat_or_paged(batch)
    return varlen_attn(
        batch.q,
        keys,
        values,
        rows.starts,
        row_starts(rows) if flat else None,
        rows.max_queries,
        rows.max_length,
        scale=batch.scale,
        window_size=(-1, 0),
        enable_gqa=batch.group > 1,
        seqused_k=rows.lengths,
        block_table=None if flat else rows.table,
    )


def flash_3(batch: Batch) -> torch.Tensor:
    from flash_attn_interface import flash_attn_varlen_func, flash_attn_with_kvcache

    rows, (flat, keys, values) = batch.rows, flat_or_paged(batch)
    shared = {"softmax_scale": batch.scale, "causal": True}
    if flat:
        found = flash_attn_varlen_func(
            batch.q,
            keys,
            values,
            rows.starts,
            row_starts(rows),
            rows.max_queries,
            rows.max_length,
            seqused_k=rows.lengths,
            **shared,
        )
    else:
        found = flash_attn_with_kvcache(
            batch.q,
            keys,
            values,
            cache_seqlens=rows.lengths,
            page_table=rows.table,
            cu_seqlens_q=rows.starts,
            max_seqlen_q=rows.max_queries,
            **shared,
        )
    return found[0] if isinstance(found, tuple) else found


def flash_2(batch: Batch) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_func

    rows, (flat, keys, values) = batch.rows, flat_or_paged(batch)
    if flat and rows.num_rows > 1:
        # Its flat form has no length apart from the next row's start: gaps cannot be described.
        raise Unsupported("FlashAttention 2 reads rows that follow each other without a gap")
    if not flat and keys.shape[1] % FA2_PAGE_TOKENS:
        raise Unsupported(
            f"FlashAttention 2 takes pages of a multiple of {FA2_PAGE_TOKENS} tokens, "
            f"not {keys.shape[1]}"
        )
    ends = rows.lengths.cumsum(0, dtype=torch.int32)
    return flash_attn_varlen_func(
        batch.q,
        keys,
        values,
        rows.starts,
        row_starts(rows) if flat else torch.nn.functional.pad(ends, (1, 0)),
        rows.max_queries,
        rows.max_length,
        softmax_scale=batch.scale,
        causal=True,
        block_table=None if flat else rows.table,
    )


def row_starts(rows: Rows) -> torch.Tensor:
    """The slot at which each row begins, and where the last one ends, int32 [S + 1]."""
    end = rows.offset[-1:] + rows.lengths[-1:]
    return torch.cat([rows.offset, end]).to(torch.int32)


CANDIDATES: dict[str, tuple[str, Attend]] = {
    "torch": ("torch", torch_varlen),
    "flash_attn_interface": ("flash_attn_interface", flash_3),
    "flash_attn": ("flash_attn", flash_2),
}


# -- trial -----------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def find(
    dtype: str, head_dim: int, page_tokens: int | None, device: str = "cuda"
) -> tuple[Attend | None, Support]:
    """Return the first candidate that computes a tiny batch correctly, or why none does."""
    reasons = []
    for name, (module, attend) in CANDIDATES.items():
        if not installed(module):
            reasons.append(f"{name}: not installed")
            continue
        try:
            error = trial(attend, dtype, head_dim, page_tokens, device)
        except Exception as failure:
            text = str(failure).strip().splitlines() or [type(failure).__name__]
            reasons.append(f"{name}: {text[0]}")
            continue
        if error <= TRIAL_TOLERANCE:
            return attend, YES
        reasons.append(f"{name}: differs from the reference by {error:.3g}")
    where = "contiguous rows" if page_tokens is None else f"pages of {page_tokens} tokens"
    return None, no(f"no flash kernel reads {where} ({'; '.join(reasons)})")


def trial(attend: Attend, dtype: str, head_dim: int, page_tokens: int | None, device: str) -> float:
    """Return the largest error of one small batch: two rows, grouped heads, a past."""
    kind = getattr(torch, dtype.removeprefix("torch."))
    numbers = torch.Generator().manual_seed(0)
    page = page_tokens or 128
    shape = (4, page, 2, head_dim) if page_tokens else (4 * page, 2, head_dim)
    k, v = (torch.randn(shape, generator=numbers).to(device, kind) for _ in range(2))
    q = torch.randn((4, 4, head_dim), generator=numbers).to(device, kind)
    # Neither the pages nor the rows follow each other in memory.
    lengths = np.array([page + 5, page - 1 or 1])
    layout = BlockTable(page, np.array([[3, 0], [2, 1]]), lengths)
    if page_tokens is None:
        layout = Strided(np.array([2 * page, 3]), lengths)
    rows = place(layout, k, [3, 1])
    batch = Batch.of(q, k, v, rows, head_dim**-0.5, torch.empty_like(q))
    wide_out = torch.empty_like(q, dtype=torch.float32)
    wide = Batch.of(q.float(), k.float(), v.float(), rows, batch.scale, wide_out)
    reference.prefill(wide)
    return (attend(batch).float() - wide_out).abs().max().nan_to_num(nan=torch.inf).item()
