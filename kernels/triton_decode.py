"""Decode through Triton: attention from one query a row over pages of any size, in splits.

A row is cut into splits by its own length alone, so it has the same bits in every batch.  One
source serves rows in pages and contiguous ones: they differ by the look-up of pages.
"""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.anchor import anchored
from kernels.batch import Batch
from kernels.triton_parts import LOG2_E, adjacent, page_constant, widen

#: rows of up to SHORT positions are cut into splits of LEAST_SPLIT; four times as long a row has
#: splits twice as long, and twice as many
LEAST_SPLIT, SHORT, DOUBLINGS = tl.constexpr(512), tl.constexpr(4096), tl.constexpr(4)
#: splits that are joined at once
LOT = 16
#: the least rows that a tensor-core product takes
LEAST_ROWS = 16
#: blocks of keys and values: one that is computed and two on their way
STAGES = 3


@triton.jit
def split_tokens(length):
    """Return the positions of a split, by the positions of its row and by nothing else."""
    doublings = 0
    for i in tl.static_range(DOUBLINGS):
        doublings += (length > SHORT * 4**i).to(tl.int32)
    return LEAST_SPLIT << doublings


def most_splits(longest: int) -> int:
    """Return the most splits that a row of up to `longest` positions is cut into."""
    short, split, most = SHORT.value, LEAST_SPLIT.value, 0
    for doublings in range(DOUBLINGS.value + 1):
        # Rows of these lengths have splits of this size; the last size serves all that are longer.
        upper = short * 4**doublings
        if longest <= upper or doublings == DOUBLINGS.value:
            return max(most, triton.cdiv(longest, split << doublings))
        most = max(most, triton.cdiv(upper, split << doublings))
    raise AssertionError("the last size serves every row")


@triton.jit
def look_up(table, at, end, PAGE: tl.constexpr):
    """Return the page of each place before `end` in a row."""
    return tl.load(table + (at.to(tl.uint32) // PAGE).to(tl.int32), mask=at < end, other=0)


@triton.jit(do_not_specialize=["table_row", "splits", "window"])
def decode_split(
    q, k, k_start: tl.int64, v, v_start: tl.int64, table, offset, lengths, peaks, totals, parts,
    scale, q_row: tl.int64, q_head: tl.int64,
    page_stride: tl.int64, token_stride: tl.int64, head_stride: tl.int64,
    table_row: tl.int64, splits: tl.int32, window: tl.int32,
    GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PAGE: tl.constexpr, CONTIGUOUS: tl.constexpr, BLOCK: tl.constexpr, WINDOWED: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """Attend from one query to one split of its row, for the query heads of one KV head.

    Grid (kv_heads, rows, splits): programs that start together read the same table and memory side
    by side.  The pages of a block are looked up a turn before it is loaded, so no load of the loop
    waits for the table.  peaks, totals: [S, Hq, splits]; parts: [S, Hq, splits, D].
    """
    kv_head, row, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    first = tl.load(offset + row)
    if WINDOWED:
        # The row begins at the first position that is seen.
        behind = tl.maximum(length - window, 0)
        length -= behind
        first += behind
    size = split_tokens(length)
    if split * size >= length:
        return
    g, d = tl.arange(0, GROUP_PAD), tl.arange(0, DIM_PAD)
    head = kv_head * GROUP + g
    mine = (g < GROUP)[:, None] & (d < DIM)[None, :]
    query = tl.load(
        q + row.to(tl.int64) * q_row + head[:, None] * q_head + d[None, :], mask=mine, other=0.0
    )
    if WIDEN:
        query = query.to(tl.float32)
    scale *= LOG2_E
    peak = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    acc = tl.zeros([GROUP_PAD, DIM_PAD], tl.float32)
    table += row.to(tl.int64) * table_row
    k += k_start + kv_head * head_stride
    v += v_start + kv_head * head_stride
    if CONTIGUOUS:
        # All lies in one page, and may lie far into it.
        base = tl.load(table).to(tl.int64) * page_stride + first * token_stride
        k, v = k + base, v + base
        origin = 0
    else:
        origin = first.to(tl.int32)
    begin = origin + split * size
    end = tl.minimum(origin + length, begin + size)
    n = tl.arange(0, BLOCK)
    if not CONTIGUOUS:
        pages = look_up(table, begin + n, end, PAGE)
    for start in range(begin, end, BLOCK):
        at = start + n
        inside = at < end
        if CONTIGUOUS:
            token = at * token_stride
        else:
            token = (at.to(tl.uint32) % PAGE).to(tl.int64) * token_stride
            token += pages.to(tl.int64) * page_stride
            pages = look_up(table, at + BLOCK, end, PAGE)
        use = inside[:, None] & (d < DIM)[None, :]
        keys = tl.load(k + token[:, None] + d[None, :], mask=use, other=0.0)
        values = tl.load(v + token[:, None] + d[None, :], mask=use, other=0.0)
        if WIDEN:
            keys, values = keys.to(tl.float32), values.to(tl.float32)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        high = tl.maximum(peak, tl.max(scores, 1))
        shrink, weights = tl.exp2(peak - high), tl.exp2(scores - high[:, None])
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(values.dtype), values, acc, input_precision="ieee")
        peak = high
    heads = tl.num_programs(0) * GROUP
    to = (row.to(tl.int64) * heads + head) * splits + split
    tl.store(peaks + to, peak, mask=g < GROUP)
    tl.store(totals + to, total, mask=g < GROUP)
    tl.store(parts + to[:, None] * DIM + d[None, :], acc, mask=mine)


@triton.jit(do_not_specialize=["splits", "window"])
def decode_reduce(
    peaks, totals, parts, out, lengths, sinks, out_row: tl.int64, out_head: tl.int64,
    splits: tl.int32, window: tl.int32,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, LOT: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """Join the splits of one query head, in two levels.  Grid (query_heads, rows).

    `LOT` splits are joined at once and the lots one after the other.  Lots are counted from the
    row's first split, so nothing depends on how many splits the longest row of the batch has.
    A head's sink is one more split, of one position without a value: it counts once a row.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + row)
    if WINDOWED:
        length = tl.minimum(length, window)
    used = tl.cdiv(length, split_tokens(length))
    at = (row.to(tl.int64) * tl.num_programs(0) + head) * splits
    d = tl.arange(0, DIM_PAD)
    peak, total = float("-inf"), 0.0
    if sinks is not None:
        peak, total = tl.load(sinks + head).to(tl.float32) * LOG2_E, 1.0
    acc = tl.zeros([DIM_PAD], tl.float32)
    for first in range(0, used, LOT):
        s = first + tl.arange(0, LOT)
        there = s < used
        peaks_of = tl.load(peaks + at + s, mask=there, other=float("-inf"))
        totals_of = tl.load(totals + at + s, mask=there, other=0.0)
        some = there[:, None] & (d < DIM)[None, :]
        parts_of = tl.load(parts + (at + s)[:, None] * DIM + d[None, :], mask=some, other=0.0)
        high = tl.maximum(peak, tl.max(peaks_of, 0))
        shrink, weights = tl.exp2(peak - high), tl.exp2(peaks_of - high)
        total = total * shrink + tl.sum(totals_of * weights, 0)
        acc = acc * shrink + tl.sum(parts_of * weights[:, None], 0)
        peak = high
    tl.store(out + row.to(tl.int64) * out_row + head * out_head + d, acc / total, mask=d < DIM)


def key_block(dim_pad: int, itemsize: int) -> int:
    """Return the positions of a block: its keys take at most 16 KiB on chip, as its values do."""
    return max(16, min(64, (16 << 10) // (dim_pad * itemsize)))


def compiled_for(dim_pad: int, group_pad: int, itemsize: int) -> dict[str, Any]:
    """Return how `decode_split` is compiled.

    Float32 is multiplied without tensor cores, and with four warps what a thread holds does not fit
    into its registers.  Of 16-bit heads of 128 and more, shared memory holds three blocks on a
    multiprocessor; registers for as many are given to rows in pages and to contiguous ones, whose
    addresses need fewer, so that the two are compiled to the same size.
    """
    if itemsize > 2:
        return {"num_warps": 8}
    if dim_pad == 64 or group_pad > LEAST_ROWS:
        return {}
    return {"maxnreg": 160 if dim_pad == 128 else 168}


def decode(batch: Batch) -> None:
    """Compute a batch; keys and values must have the same strides."""
    keys, values, rows, out = batch.keys, batch.values, batch.rows, batch.out
    count, heads, dim = batch.q.shape
    window = rows.max_length if batch.window is None else batch.window
    splits = most_splits(min(rows.max_length, window))
    dim_pad = triton.next_power_of_2(dim)
    group_pad = max(LEAST_ROWS, triton.next_power_of_2(batch.group))
    working = {"dtype": torch.float32, "device": batch.q.device}
    peaks = torch.empty((count, heads, splits), **working)
    totals = torch.empty((count, heads, splits), **working)
    parts = torch.empty((count, heads, splits, dim), **working)
    q = adjacent(batch.q)
    both = {"DIM": dim, "DIM_PAD": dim_pad, "WINDOWED": batch.window is not None}
    decode_split[(batch.kv_heads, count, splits)](
        q, *anchored(keys), *anchored(values), rows.table, rows.offset, rows.lengths,
        peaks, totals, parts, batch.scale,
        *q.stride()[:2], *keys.stride()[:3], rows.table.stride(0), splits, window,
        GROUP=batch.group,
        GROUP_PAD=group_pad,
        PAGE=page_constant(rows),
        CONTIGUOUS=rows.contiguous,
        BLOCK=key_block(dim_pad, q.element_size()),
        WIDEN=widen(q),
        num_stages=STAGES,
        **compiled_for(dim_pad, group_pad, q.element_size()),
        **both,
    )  # fmt: skip
    decode_reduce[(heads, count)](
        peaks, totals, parts, out, rows.lengths, batch.sinks, *out.stride()[:2], splits, window,
        LOT=LOT,
        **both,
    )  # fmt: skip
