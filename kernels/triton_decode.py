"""Decode through Triton: attention from one query a row over pages of any size, in splits."""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.anchor import anchored
from kernels.batch import Batch
from kernels.triton_parts import (
    LEAST_ROWS,
    STAGES,
    absorb,
    adjacent,
    key_block,
    locate,
    page_constant,
    widen,
)

#: positions that one program of a decode walks; fixed, so that results do not depend on the batch
SPLIT_TOKENS = 256


@triton.jit(do_not_specialize=["table_row", "splits"])
def decode_split(
    q, k, k_start: tl.int64, v, v_start: tl.int64, table, offset, lengths, peaks, totals, parts,
    scale, q_row: tl.int64, q_head: tl.int64,
    k_page: tl.int64, k_token: tl.int64, k_head: tl.int64,
    v_page: tl.int64, v_token: tl.int64, v_head: tl.int64, table_row: tl.int64, splits: tl.int32,
    GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PAGE: tl.constexpr, CONTIGUOUS: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """Attend from one query to `SPLIT` positions, for the query heads of one KV head.

    Grid (rows, kv_heads, splits).  peaks, totals: [S, Hq, splits]; parts: [S, Hq, splits, D].
    """
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    if split * SPLIT >= length:
        return
    first = tl.load(offset + row)
    g, d = tl.arange(0, GROUP_PAD), tl.arange(0, DIM_PAD)
    head = kv_head * GROUP + g
    mine = (g < GROUP)[:, None] & (d < DIM)[None, :]
    query = tl.load(
        q + row.to(tl.int64) * q_row + head[:, None] * q_head + d[None, :], mask=mine, other=0.0
    )
    peak = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    acc = tl.zeros([GROUP_PAD, DIM_PAD], tl.float32)
    table += row.to(tl.int64) * table_row
    k, v = k + k_start, v + v_start
    end = tl.minimum(length, (split + 1) * SPLIT)
    for start in range(split * SPLIT, end, BLOCK):
        n = start + tl.arange(0, BLOCK)
        inside = n < end
        use = inside[:, None] & (d < DIM)[None, :]
        k_at = locate(table, first, n, inside, k_page, k_token, PAGE, CONTIGUOUS)
        v_at = locate(table, first, n, inside, v_page, v_token, PAGE, CONTIGUOUS)
        keys = tl.load(k + kv_head * k_head + k_at[:, None] + d[None, :], mask=use, other=0.0)
        values = tl.load(v + kv_head * v_head + v_at[:, None] + d[None, :], mask=use, other=0.0)
        seen = inside[None, :] & (g < GROUP_PAD)[:, None]
        peak, total, acc = absorb(query, keys, values, seen, scale, peak, total, acc, WIDEN)
    heads = tl.num_programs(1) * GROUP
    at = (row.to(tl.int64) * heads + head) * splits + split
    tl.store(peaks + at, peak, mask=g < GROUP)
    tl.store(totals + at, total, mask=g < GROUP)
    tl.store(parts + at[:, None] * DIM + d[None, :], acc, mask=mine)


@triton.jit(do_not_specialize=["splits"])
def decode_reduce(
    peaks, totals, parts, out, lengths, out_row: tl.int64, out_head: tl.int64, splits: tl.int32,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Join the splits of one query head, one after the other.  Grid (rows, query_heads).

    A sum over all splits at once would be grouped by how many the longest row of the batch has.
    """
    row, head = tl.program_id(0), tl.program_id(1)
    at = (row.to(tl.int64) * tl.num_programs(1) + head) * splits
    used = tl.cdiv(tl.load(lengths + row), SPLIT)
    d = tl.arange(0, DIM_PAD)
    peak = tl.load(peaks + at)
    for s in range(1, used):
        peak = tl.maximum(peak, tl.load(peaks + at + s))
    acc = tl.zeros([DIM_PAD], tl.float32)
    total = 0.0
    for s in range(0, used):
        weight = tl.exp2(tl.load(peaks + at + s) - peak)
        total += tl.load(totals + at + s) * weight
        acc += tl.load(parts + (at + s) * DIM + d, mask=d < DIM, other=0.0) * weight
    tl.store(out + row.to(tl.int64) * out_row + head * out_head + d, acc / total, mask=d < DIM)


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
    decode_split[(count, kv_heads, splits)](
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
    decode_reduce[(count, heads)](
        peaks, totals, parts, out, rows.lengths, *out.stride()[:2], splits,
        DIM=dim,
        DIM_PAD=dim_pad,
        SPLIT=SPLIT_TOKENS,
    )  # fmt: skip
