"""Back end `flash`: FlashAttention kernels of torch or of the flash-attn packages, as installed.

Which page sizes, types and head sizes they take depends on the version and on the device, and what
their documentation says is not always what they do.  So each candidate is tried once on a tiny
batch of the very kind and compared with the reference; the reason it failed is the probe's answer.

- `torch`: the operator behind `torch.nn.attention.varlen`: contiguous rows in 2.11, pages from
  2.12 on
- `flash_attn_interface`: FlashAttention 3, any page size
- `flash_attn`: FlashAttention 2, pages of a multiple of 256 tokens, and contiguous rows in the way
  of vAttention
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import pad

from allocators.base import BlockTable, Strided, Unsupported
from kernels import reference
from kernels.batch import Batch
from kernels.rows import Rows, known, place
from kernels.support import YES, Support, installed, no

#: computes a batch and returns the result; where that goes is the caller's business
Attend = Callable[[Batch], torch.Tensor]

#: pages that FlashAttention 2 takes are multiples of this
FA2_PAGE_TOKENS = 256

#: what a 16-bit kernel may differ by from float32 in a trial on numbers of about 1
TRIAL_TOLERANCE = 3e-2
#: shorter than the rows of a trial, but for those of pages of one token
TRIAL_WINDOW = 2


def prefill(batch: Batch) -> None:
    q, rows = batch.q, batch.rows
    page = None if is_flat(batch) else rows.page_tokens
    kind, windowed = str(q.dtype).removeprefix("torch."), batch.window is not None
    attend, support = find(kind, q.shape[-1], page, q.device.type, windowed)
    if attend is None:
        raise Unsupported(f"flash: {support.reason}")
    if page is not None and known(rows).within_page:
        raise Unsupported("flash: a row begins within a page")
    batch.out.copy_(attend(in_sight(batch)))


decode = prefill


def is_flat(batch: Batch) -> bool:
    """Whether the rows lie in one uniform buffer, so that a start and a length describe them."""
    return batch.rows.contiguous and batch.keys.shape[0] == 1


def in_sight(batch: Batch) -> Batch:
    """Leave out what lies behind all windows, where a kernel can be told where a row begins."""
    return batch.narrowed() if is_flat(batch) else batch


def flat_or_paged(batch: Batch) -> tuple[bool, torch.Tensor, torch.Tensor]:
    """Return whether the rows are flat, and keys and values as [slots, ..] if so, else as pages."""
    if is_flat(batch):
        return True, batch.keys[0], batch.values[0]
    return False, batch.keys, batch.values


# -- candidates ------------------------------------------------------------------------------
def torch_flash(batch: Batch) -> torch.Tensor:
    """The flash implementation that is active in torch, called below its checks.

    `varlen_attn` of torch 2.11 takes no lengths apart from the rows' ends.  Where there is
    none, no window is passed: with that of causality, (-1, 0), a decode would read the KV of a
    group once for each head.
    """
    rows, (flat, keys, values) = batch.rows, flat_or_paged(batch)
    forward = torch.ops.aten._flash_attention_forward
    more = {} if flat else {"block_table": rows.table}
    taken = {argument.name for argument in forward.default._schema.arguments}
    if not taken >= set(more):
        raise Unsupported(f"torch {torch.__version__} reads no pages (2.12 does)")
    if batch.window is not None:
        more |= {"window_size_left": batch.window - 1, "window_size_right": 0}
    return forward(
        batch.q,
        keys,
        values,
        rows.starts,
        row_starts(rows) if flat else None,
        rows.max_queries,
        rows.max_length,
        0.0,
        True,
        False,
        scale=batch.scale,
        seqused_k=rows.lengths,
        **more,
    )[0]


def flash_3(batch: Batch) -> torch.Tensor:
    from flash_attn_interface import flash_attn_varlen_func, flash_attn_with_kvcache

    rows, (flat, keys, values) = batch.rows, flat_or_paged(batch)
    shared = {"softmax_scale": batch.scale, "causal": True, **window_size(batch)}
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
    rows, (flat, keys, values) = batch.rows, flat_or_paged(batch)
    if flat:
        return flash_2_flat(batch, keys, values)
    from flash_attn import flash_attn_varlen_func

    if keys.shape[1] % FA2_PAGE_TOKENS:
        raise Unsupported(
            f"FlashAttention 2 takes pages of a multiple of {FA2_PAGE_TOKENS} tokens, "
            f"not {keys.shape[1]}"
        )
    return flash_attn_varlen_func(
        batch.q,
        keys,
        values,
        rows.starts,
        derived(rows, "ends", lambda: pad(rows.lengths.cumsum(0, dtype=torch.int32), (1, 0))),
        rows.max_queries,
        rows.max_length,
        softmax_scale=batch.scale,
        causal=True,
        block_table=rows.table,
        **window_size(batch),
    )


def flash_2_flat(batch: Batch, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Read contiguous rows by `cache_batch_idx`, as vAttention does (section 5).

    The cache is shown as rows that begin at every slot, so that a row's first slot is its index.
    Rows with as many new tokens as each other are one call, others are a call each.
    """
    from flash_attn import flash_attn_with_kvcache

    rows, host = batch.rows, known(batch.rows)
    longest = rows.max_length

    def from_each_slot(cache: torch.Tensor) -> torch.Tensor:
        token, head, _ = cache.stride()
        size = (len(cache) - longest + 1, longest, *cache.shape[1:])
        return cache.as_strided(size, (token, token, head, 1), cache.storage_offset())

    # A short row may begin behind the last of these; its index is multiplied by a stride all the
    # same, and no more is read than its length.
    first = derived(rows, "first", lambda: rows.offset.to(torch.int32))
    every, queries = slice(None), host.queries
    parts = [(every, every, int(queries[0]))]
    if (queries != queries[0]).any():
        parts = [
            (slice(row, row + 1), slice(at, at + new), new)
            for row, (at, new) in enumerate(
                zip(host.starts[:-1].tolist(), queries.tolist(), strict=True)
            )
        ]
    found = [
        flash_attn_with_kvcache(
            batch.q[at].unflatten(0, (-1, new)),
            from_each_slot(keys),
            from_each_slot(values),
            cache_seqlens=rows.lengths[some],
            cache_batch_idx=first[some],
            softmax_scale=batch.scale,
            causal=True,
            **window_size(batch),
        ).flatten(0, 1)
        for some, at, new in parts
    ]
    return found[0] if len(found) == 1 else torch.cat(found)


def window_size(batch: Batch) -> dict[str, tuple[int, int]]:
    """How the flash-attn packages are told of a window: positions before the query, and behind."""
    return {} if batch.window is None else {"window_size": (batch.window - 1, 0)}


def row_starts(rows: Rows) -> torch.Tensor:
    """The slot at which each row begins, and where the last one ends, int32 [S + 1]."""
    return derived(
        rows,
        "row_starts",
        lambda: torch.cat([rows.offset, rows.offset[-1:] + rows.lengths[-1:]]).to(torch.int32),
    )


def derived(rows: Rows, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Make once what every layer needs."""
    if ("flash", name) not in rows.derived:
        rows.derived["flash", name] = make()
    return rows.derived["flash", name]


CANDIDATES: dict[str, tuple[str, Attend]] = {
    "torch": ("torch", torch_flash),
    "flash_attn_interface": ("flash_attn_interface", flash_3),
    "flash_attn": ("flash_attn", flash_2),
}


# -- trial -----------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def find(
    dtype: str,
    head_dim: int,
    page_tokens: int | None,
    device: str = "cuda",
    windowed: bool = False,
) -> tuple[Attend | None, Support]:
    """Return the first candidate that computes a tiny batch correctly, or why none does."""
    reasons = []
    for name, (module, attend) in CANDIDATES.items():
        if not installed(module):
            reasons.append(f"{name}: not installed")
            continue
        try:
            error = trial(attend, dtype, head_dim, page_tokens, device, windowed)
        except Exception as failure:
            text = str(failure).strip().splitlines() or [type(failure).__name__]
            reasons.append(f"{name}: {text[0].split('. ')[0]}")
            continue
        if error <= TRIAL_TOLERANCE:
            return attend, YES
        reasons.append(f"{name}: differs from the reference by {error:.3g}")
    where = "contiguous rows" if page_tokens is None else f"pages of {page_tokens} tokens"
    return None, no(f"no flash kernel reads {where} ({'; '.join(reasons)})")


def trial(
    attend: Attend,
    dtype: str,
    head_dim: int,
    page_tokens: int | None,
    device: str,
    windowed: bool = False,
) -> float:
    """Return the largest error of two small batches with grouped heads: a prefill and a decode."""
    return max(
        trial_of(queries, attend, dtype, head_dim, page_tokens, device, windowed)
        for queries in ([1, 2], [1, 1])
    )


def trial_of(
    queries: list[int],
    attend: Attend,
    dtype: str,
    head_dim: int,
    page_tokens: int | None,
    device: str,
    windowed: bool,
) -> float:
    """Return the largest error of one batch of two rows, of `queries` new tokens, with a past."""
    kind = getattr(torch, dtype.removeprefix("torch."))
    numbers = torch.Generator().manual_seed(0)
    page = page_tokens or 128
    shape = (4, page, 2, head_dim) if page_tokens else (4 * page, 2, head_dim)
    k, v = (torch.randn(shape, generator=numbers).to(device, kind) for _ in range(2))
    q = torch.randn((sum(queries), 4, head_dim), generator=numbers).to(device, kind)
    # Neither the pages nor the rows follow each other; the first row ends with the memory.
    lengths = np.array([page - 1 or 1, page + min(5, page)])
    layout = BlockTable(page, np.array([[2, 1], [3, 0]]), lengths)
    if page_tokens is None:
        layout = Strided(np.array([4 * page - lengths[0], 3]), lengths)
    rows = place(layout, k, queries)
    window = TRIAL_WINDOW if windowed else None
    batch = Batch.of(q, k, v, rows, head_dim**-0.5, torch.empty_like(q), window)
    wide_out = torch.empty_like(q, dtype=torch.float32)
    wide = Batch.of(q.float(), k.float(), v.float(), rows, batch.scale, wide_out, window)
    reference.prefill(wide)
    return (attend(in_sight(batch)).float() - wide_out).abs().max().nan_to_num(nan=torch.inf).item()
