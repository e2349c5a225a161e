"""Back end `triton`: launches the attention kernels of `triton_kernels`."""

from __future__ import annotations

import torch
import triton

from kernels import triton_kernels
from kernels.anchor import anchored
from kernels.batch import Batch
from kernels.rows import Rows

#: positions that one program of a decode walks; fixed, so that results do not depend on the batch
SPLIT_TOKENS = 256
#: query rows of a prefill block, and the least that a tensor-core product takes
QUERY_BLOCK, LEAST_ROWS = 32, 16
#: blocks in flight; three of float32 would be too much for the shared memory of small GPUs
STAGES = 2


def key_block(dim_pad: int, itemsize: int) -> int:
    """Positions loaded at once: keys of a block take at most 16 KiB on chip, as values do."""
    return max(16, min(64, (16 << 10) // (dim_pad * itemsize)))


def decode(batch: Batch) -> None:
    keys, values, rows, out = batch.keys, batch.values, batch.rows, batch.out
    count, heads, dim = batch.q.shape
    kv_heads, group = batch.kv_heads, batch.group
    splits = max(1, -(-rows.max_length // SPLIT_TOKENS))
    dim_pad = triton.next_power_of_2(dim)
    working = {"dtype": torch.float32, "device": batch.q.device}
    peaks = torch.empty((count, heads, splits), **working)
    totals = torch.empty((count, heads, splits), **working)
    parts = torch.empty((count, heads, splits, dim), **working)
    q = adjacent(batch.q)
    triton_kernels.decode_split[(count, kv_heads, splits)](
        q, *anchored(keys), *anchored(values), rows.table, rows.offset, rows.lengths,
        peaks, totals, parts, batch.scale,
        *q.stride()[:2], *keys.stride()[:3], *values.stride()[:3], rows.table.stride(0),
        splits,
        GROUP=group,
        GROUP_PAD=max(LEAST_ROWS, triton.next_power_of_2(group)),
        DIM=dim,
        DIM_PAD=dim_pad,
        PAGE=page_constant(rows),
        CONTIGUOUS=rows.contiguous,
        SPLIT=SPLIT_TOKENS,
        BLOCK=key_block(dim_pad, q.element_size()),
        WIDEN=widen(q),
        num_stages=STAGES,
    )  # fmt: skip
    triton_kernels.decode_reduce[(count, heads)](
        peaks, totals, parts, out, rows.lengths, *out.stride()[:2], splits,
        DIM=dim,
        DIM_PAD=dim_pad,
        SPLIT=SPLIT_TOKENS,
    )  # fmt: skip


def prefill(batch: Batch) -> None:
    keys, values, rows, out = batch.keys, batch.values, batch.rows, batch.out
    _, heads, dim = batch.q.shape
    dim_pad = triton.next_power_of_2(dim)
    blocks = -(-rows.max_queries // QUERY_BLOCK)
    q = adjacent(batch.q)
    triton_kernels.prefill[(rows.num_rows, blocks, heads)](
        q, *anchored(keys), *anchored(values), rows.table, rows.offset, rows.lengths, rows.starts,
        out, batch.scale,
        *q.stride()[:2], *keys.stride()[:3], *values.stride()[:3], rows.table.stride(0),
        *out.stride()[:2],
        GROUP=batch.group,
        DIM=dim,
        DIM_PAD=dim_pad,
        PAGE=page_constant(rows),
        CONTIGUOUS=rows.contiguous,
        QUERIES=QUERY_BLOCK,
        BLOCK=key_block(dim_pad, q.element_size()),
        WIDEN=widen(q),
        num_stages=STAGES,
    )  # fmt: skip


def page_constant(rows: Rows) -> int:
    """A page size is compiled in; that of contiguous rows plays no part and is left out."""
    return 1 if rows.contiguous else rows.page_tokens


def adjacent(q: torch.Tensor) -> torch.Tensor:
    return q if q.stride(-1) == 1 else q.contiguous()


def widen(q: torch.Tensor) -> bool:
    """Triton's interpreter multiplies the bit patterns of bfloat16 in a dot; a GPU does not."""
    return triton.knobs.runtime.interpret and q.dtype == torch.bfloat16
