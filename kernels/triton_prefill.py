"""Prefill through Triton: causal attention from a row's last tokens over pages of any size."""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

import triton
import triton.language as tl

from allocators.base import Unsupported
from kernels.anchor import anchored
from kernels.batch import Batch
from kernels.triton_parts import STAGES, absorb, adjacent, key_block, locate, page_constant, widen

#: query rows of a prefill block
QUERY_BLOCK = 32


@triton.jit(do_not_specialize=["table_row"])
def prefill_block(
    q, k, k_start: tl.int64, v, v_start: tl.int64, table, offset, lengths, starts, out, scale,
    q_row: tl.int64, q_head: tl.int64,
    k_page: tl.int64, k_token: tl.int64, k_head: tl.int64,
    v_page: tl.int64, v_token: tl.int64, v_head: tl.int64, table_row: tl.int64,
    out_row: tl.int64, out_head: tl.int64,
    GROUP: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PAGE: tl.constexpr, CONTIGUOUS: tl.constexpr, QUERIES: tl.constexpr, BLOCK: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """Attend causally from a block of new tokens.  Grid (rows, query blocks, query_heads)."""
    row, block, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    start = tl.load(starts + row)
    new = tl.load(starts + row + 1) - start
    if block * QUERIES >= new:
        return
    first = tl.load(offset + row)
    kv_head = head // GROUP
    m, d = block * QUERIES + tl.arange(0, QUERIES), tl.arange(0, DIM_PAD)
    mine = (m < new)[:, None] & (d < DIM)[None, :]
    at = (start + m).to(tl.int64)
    query = tl.load(q + at[:, None] * q_row + head * q_head + d[None, :], mask=mine, other=0.0)
    position = length - new + m
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    acc = tl.zeros([QUERIES, DIM_PAD], tl.float32)
    table += row.to(tl.int64) * table_row
    k, v = k + k_start, v + v_start
    end = tl.minimum(length, length - new + (block + 1) * QUERIES)
    for begin in range(0, end, BLOCK):
        n = begin + tl.arange(0, BLOCK)
        inside = n < end
        use = inside[:, None] & (d < DIM)[None, :]
        k_at = locate(table, first, n, inside, k_page, k_token, PAGE, CONTIGUOUS)
        v_at = locate(table, first, n, inside, v_page, v_token, PAGE, CONTIGUOUS)
        keys = tl.load(k + kv_head * k_head + k_at[:, None] + d[None, :], mask=use, other=0.0)
        values = tl.load(v + kv_head * v_head + v_at[:, None] + d[None, :], mask=use, other=0.0)
        seen = inside[None, :] & (n[None, :] <= position[:, None])
        peak, total, acc = absorb(query, keys, values, seen, scale, peak, total, acc, WIDEN)
    # Rows of the block behind the last query have seen the whole end and are dropped here.
    found = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + at[:, None] * out_row + head * out_head + d[None, :], found, mask=mine)


def prefill(batch: Batch) -> None:
    if batch.window is not None:
        raise Unsupported("triton prefill: takes no window")
    keys, values, rows, out = batch.keys, batch.values, batch.rows, batch.out
    _, heads, dim = batch.q.shape
    dim_pad = triton.next_power_of_2(dim)
    blocks = -(-rows.max_queries // QUERY_BLOCK)
    q = adjacent(batch.q)
    prefill_block[(rows.num_rows, blocks, heads)](
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
