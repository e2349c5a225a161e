"""Triton kernels: attention over pages of any size, split over the row; store and copy of slots.

Addresses follow `kernels.rows`: position p of row i is at q = offset[i] + p, in page
table[i, q // PAGE].  A row without a block table lies in one page (`CONTIGUOUS`), found once.

Numbers are summed in an order that depends on positions alone (fixed blocks, fixed splits), so a
row's result does not depend on the layout or on the rest of the batch.

Caches come as an anchor and the elements from it to the cache (`kernels.anchor`).  Strides and
other integers that may need 64 bits are 64 bits wide always: else their type would follow their
value, and a larger cache would compile another kernel.  What changes from call to call (splits, the
width of a table, slots of a cache) is not specialised on, for the same reason.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - arguments are pointers and strides

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _locate(
    table_row, offset, position, inside, page_stride, token_stride,
    PAGE: tl.constexpr, CONTIGUOUS: tl.constexpr,
):  # fmt: skip
    """Return the element offset of each position in a cache, [BLOCK]."""
    at = offset + position
    if CONTIGUOUS:
        page = tl.load(table_row).to(tl.int64)
        return page * page_stride + at * token_stride
    page = tl.load(table_row + at // PAGE, mask=inside, other=0).to(tl.int64)
    return page * page_stride + (at % PAGE) * token_stride


@triton.jit
def _absorb(q, k, v, seen, scale, peak, total, acc, WIDEN: tl.constexpr):
    """One block of the online softmax; q [M, D], k and v [N, D], seen [M, N]."""
    if WIDEN:
        q, k, v = q.to(tl.float32), k.to(tl.float32), v.to(tl.float32)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)
    scores = tl.where(seen, scores, float("-inf"))
    high = tl.maximum(peak, tl.max(scores, 1))
    # A row of the block that has seen nothing yet would give inf - inf.
    base = tl.where(high == float("-inf"), 0.0, high)
    shrink = tl.exp2(peak - base)
    weights = tl.exp2(scores - base[:, None])
    total = total * shrink + tl.sum(weights, 1)
    acc = acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return high, total, acc


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
        k_at = _locate(table, first, n, inside, k_page, k_token, PAGE, CONTIGUOUS)
        v_at = _locate(table, first, n, inside, v_page, v_token, PAGE, CONTIGUOUS)
        keys = tl.load(k + kv_head * k_head + k_at[:, None] + d[None, :], mask=use, other=0.0)
        values = tl.load(v + kv_head * v_head + v_at[:, None] + d[None, :], mask=use, other=0.0)
        seen = inside[None, :] & (g < GROUP_PAD)[:, None]
        peak, total, acc = _absorb(query, keys, values, seen, scale, peak, total, acc, WIDEN)
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


@triton.jit(do_not_specialize=["table_row"])
def prefill(
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
        k_at = _locate(table, first, n, inside, k_page, k_token, PAGE, CONTIGUOUS)
        v_at = _locate(table, first, n, inside, v_page, v_token, PAGE, CONTIGUOUS)
        keys = tl.load(k + kv_head * k_head + k_at[:, None] + d[None, :], mask=use, other=0.0)
        values = tl.load(v + kv_head * v_head + v_at[:, None] + d[None, :], mask=use, other=0.0)
        seen = inside[None, :] & (n[None, :] <= position[:, None])
        peak, total, acc = _absorb(query, keys, values, seen, scale, peak, total, acc, WIDEN)
    # Rows of the block behind the last query have seen the whole end and are dropped here.
    found = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + at[:, None] * out_row + head * out_head + d[None, :], found, mask=mine)


@triton.jit(do_not_specialize=["s_tokens", "t_tokens"])
def move_slots(
    source, source_start: tl.int64, target, target_start: tl.int64, source_slots, target_slots,
    numbers, dim, s_page: tl.int64, s_token: tl.int64, s_head: tl.int64,
    t_page: tl.int64, t_token: tl.int64, t_head: tl.int64, s_tokens: tl.int64, t_tokens: tl.int64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """target[target_slots[i]] = source[source_slots[i]], `numbers` each.  Grid (slots, blocks)."""
    i = tl.program_id(0)
    source, target = source + source_start, target + target_start
    from_slot, to_slot = tl.load(source_slots + i), tl.load(target_slots + i)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head, d = x // dim, x % dim
    read = (from_slot // s_tokens) * s_page + (from_slot % s_tokens) * s_token + head * s_head + d
    write = (to_slot // t_tokens) * t_page + (to_slot % t_tokens) * t_token + head * t_head + d
    tl.store(target + write, tl.load(source + read, mask=x < numbers), mask=x < numbers)
