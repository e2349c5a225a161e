"""Prefill through Triton: causal attention from a row's last tokens over pages of any size.

A program computes a tile: `QUERIES` pairs of a new token and a query head, of one KV head.  The
query heads of a KV head lie side by side in it, so its keys and values are read once for all of
them.  It walks over blocks of `BLOCK` keys that begin at multiples of `BLOCK`, first those that
all of its queries see whole, without a mask, then the diagonal and the tail with one.  What a
query adds up depends on its position alone: a block that it does not see changes none of its
numbers, both walks compute with the same operations, and all tiles of a type and head size have
the same blocks and the same layout of a query's scores within a warp.

The page ids of the next block are loaded before those of this one are used, so that a block's keys
are copied into shared memory while others are multiplied, through a table too.
"""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from kernels.anchor import anchored
from kernels.batch import Batch
from kernels.triton_decode import look_up
from kernels.triton_parts import LOG2_E, adjacent, page_constant, widen


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of queries and keys that one program multiplies at a time, and what it has for it.

    `stages`: blocks of keys in shared memory, the one in use among them.
    """

    queries: int
    keys: int
    warps: int
    stages: int


#: exact float32 has no tensor cores: its operands pass through registers, and more keys spill
EXACT = (Tile(32, 16, 8, 3),)
#: two warp groups of 64 rows, the least for Hopper's asynchronous products; one where rows are few
HOPPER = (Tile(64, 64, 4, 3), Tile(128, 64, 8, 3))
HOPPER_WIDE = (Tile(128, 32, 8, 3),)
#: registers hold the queries too, so fewer keys; in half of this tile warps would share a query,
#: whose sums would then depend on the tile
AMPERE = (Tile(128, 32, 8, 4),)
AMPERE_WIDE = (Tile(64, 32, 8, 2),)


def tiles(dtype: torch.dtype, dim_pad: int, capability: int) -> tuple[Tile, ...]:
    """Return the tiles to choose from, small ones first.

    `dim_pad`: the head size up to a power of two; `capability`: 90 for compute capability 9.0.
    """
    if dtype == torch.float32:
        return EXACT
    wide = dim_pad > 128
    if 90 <= capability < 120:  # 12.x has the products of 8.x
        return HOPPER_WIDE if wide else HOPPER
    return AMPERE_WIDE if wide else AMPERE


@triton.jit
def walk(
    query, k, v, page_stride, token_stride, table, first, begin, stop, low, end, position, window,
    scale, peak, total, acc,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, PAGE: tl.constexpr, CONTIGUOUS: tl.constexpr,
    BLOCK: tl.constexpr, WIDEN: tl.constexpr, WINDOWED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Absorb the blocks of keys from `begin` to `stop` into an online softmax.

    query [M, D], position, peak, total [M], acc [M, D].  Only positions from `low` to `end` are
    read; without `MASKED` every query sees all of every block.
    """
    each, d = tl.arange(0, BLOCK), tl.arange(0, DIM_PAD)
    if not CONTIGUOUS:
        pages = look_up(table, first + begin + each, first + end, PAGE)
    for at in range(begin, stop, BLOCK):
        n = at + each
        if CONTIGUOUS:
            there = n * token_stride
        else:
            inner = ((first + n).to(tl.uint32) % PAGE).to(tl.int64)
            there = pages.to(tl.int64) * page_stride + inner * token_stride
            pages = look_up(table, first + n + BLOCK, first + end, PAGE)
        there = there[:, None] + d[None, :]
        if MASKED:
            use = (n < end)[:, None] & (d < DIM)[None, :]
            if WINDOWED:
                use &= (n >= low)[:, None]
            keys = tl.load(k + there, mask=use, other=0.0)
            values = tl.load(v + there, mask=use, other=0.0)
        elif DIM < DIM_PAD:
            use = (d < DIM)[None, :]
            keys = tl.load(k + there, mask=use, other=0.0)
            values = tl.load(v + there, mask=use, other=0.0)
        else:
            keys, values = tl.load(k + there), tl.load(v + there)
        if WIDEN:
            keys, values = keys.to(tl.float32), values.to(tl.float32)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
        if MASKED:
            seen = n[None, :] <= position[:, None]
            if WINDOWED:
                seen &= n[None, :] > position[:, None] - window
            scores = tl.where(seen, scores, float("-inf"))
        high = tl.maximum(peak, tl.max(scores, 1) * scale)
        base = high
        if WINDOWED:
            # What has seen nothing yet would give inf - inf.
            base = tl.where(high == float("-inf"), 0.0, high)
        shrink = tl.exp2(peak - base)
        # Multiplied and added at once by name: a compiler may do so in one walk and not in the
        # other.
        weights = tl.exp2(tl.fma(scores, scale, -base[:, None]))
        total = tl.fma(total, shrink, tl.sum(weights, 1))
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(values.dtype), values, acc, input_precision="ieee")
        peak = high
    return peak, total, acc


@triton.jit(do_not_specialize=["table_row", "window"])
def prefill_block(
    q, k, k_start: tl.int64, v, v_start: tl.int64, table, offset, lengths, starts, sinks, out,
    scale, q_row: tl.int64, q_head: tl.int64,
    page_stride: tl.int64, token_stride: tl.int64, head_stride: tl.int64, table_row: tl.int64,
    out_row: tl.int64, out_head: tl.int64, window: tl.int32,
    GROUP: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PAGE: tl.constexpr, CONTIGUOUS: tl.constexpr, QUERIES: tl.constexpr, BLOCK: tl.constexpr,
    WIDEN: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """Attend causally from one tile of new tokens.  Grid (kv_heads, tiles of a row, rows).

    Strides are those of keys and of values.  `window` counts where the kernel is `WINDOWED`.
    A head's sink is the first position that its queries see, and has no value.
    """
    kv_head, row = tl.program_id(0), tl.program_id(2)
    length = tl.load(lengths + row)
    start = tl.load(starts + row)
    new = tl.load(starts + row + 1) - start
    # The last tokens see most: they begin first.
    tile = tl.cdiv(new * GROUP, QUERIES) - 1 - tl.program_id(1)
    if tile < 0:
        return
    first = tl.load(offset + row)
    pair, d = tile * QUERIES + tl.arange(0, QUERIES), tl.arange(0, DIM_PAD)
    token, head = pair // GROUP, kv_head * GROUP + pair % GROUP
    mine = (token < new)[:, None] & (d < DIM)[None, :]
    at = (start + token).to(tl.int64)
    query = tl.load(q + (at * q_row + head * q_head)[:, None] + d[None, :], mask=mine, other=0.0)
    if WIDEN:
        query = query.to(tl.float32)
    past = length - new
    # What lies behind the last token sees what that sees, and is dropped in the end.
    position = past + tl.minimum(token, new - 1)
    lowest = past + tile * QUERIES // GROUP
    end = tl.minimum(length, past + ((tile + 1) * QUERIES - 1) // GROUP + 1)
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    if sinks is not None:
        peak, total = tl.load(sinks + head).to(tl.float32) * LOG2_E, total + 1.0
    acc = tl.zeros([QUERIES, DIM_PAD], tl.float32)
    table += row.to(tl.int64) * table_row
    k, v = k + k_start + kv_head * head_stride, v + v_start + kv_head * head_stride
    if CONTIGUOUS:
        whole = tl.load(table).to(tl.int64) * page_stride + first * token_stride
        k, v = k + whole, v + whole
    first, scale = first.to(tl.int32), scale * LOG2_E
    # Every query of the tile sees all of the blocks from `clear` to `edge`.
    low, clear, edge = 0, 0, (lowest + 1) // BLOCK * BLOCK
    if WINDOWED:
        low = tl.maximum(0, lowest - window + 1)
        begin = low // BLOCK * BLOCK
        clear = tl.cdiv(tl.maximum(end - window, low), BLOCK) * BLOCK
        clear = tl.maximum(begin, tl.minimum(clear, edge))
        peak, total, acc = walk(
            query, k, v, page_stride, token_stride, table, first, begin, clear, low, end,
            position, window, scale, peak, total, acc,
            DIM, DIM_PAD, PAGE, CONTIGUOUS, BLOCK, WIDEN, WINDOWED, True,
        )  # fmt: skip
    peak, total, acc = walk(
        query, k, v, page_stride, token_stride, table, first, clear, edge, low, end,
        position, window, scale, peak, total, acc,
        DIM, DIM_PAD, PAGE, CONTIGUOUS, BLOCK, WIDEN, WINDOWED, False,
    )  # fmt: skip
    peak, total, acc = walk(
        query, k, v, page_stride, token_stride, table, first, edge, end, low, end,
        position, window, scale, peak, total, acc,
        DIM, DIM_PAD, PAGE, CONTIGUOUS, BLOCK, WIDEN, WINDOWED, True,
    )  # fmt: skip
    found = acc / total[:, None]
    tl.store(out + (at * out_row + head * out_head)[:, None] + d[None, :], found, mask=mine)


def prefill(batch: Batch) -> None:
    """Compute a batch; keys and values must have the same strides."""
    keys, rows, out = batch.keys, batch.rows, batch.out
    dim = batch.q.shape[-1]
    dim_pad = triton.next_power_of_2(dim)
    pairs = rows.max_queries * batch.group
    choice = tiles(batch.q.dtype, dim_pad, capability())
    tile = next((tile for tile in choice if pairs <= tile.queries), choice[-1])
    q = adjacent(batch.q)
    prefill_block[(batch.kv_heads, triton.cdiv(pairs, tile.queries), rows.num_rows)](
        q, *anchored(keys), *anchored(batch.values), rows.table, rows.offset, rows.lengths,
        rows.starts, batch.sinks, out, batch.scale,
        *q.stride()[:2], *keys.stride()[:3], rows.table.stride(0), *out.stride()[:2],
        0 if batch.window is None else min(batch.window, rows.max_length),
        GROUP=batch.group,
        DIM=dim,
        DIM_PAD=dim_pad,
        PAGE=page_constant(rows),
        CONTIGUOUS=rows.contiguous,
        QUERIES=tile.queries,
        BLOCK=tile.keys,
        WIDEN=widen(q),
        WINDOWED=batch.window is not None,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )  # fmt: skip


def capability() -> int:
    """Compute capability of the device in use, 90 for 9.0; the interpreter has none and says 90."""
    if triton.knobs.runtime.interpret:
        return 90
    return triton.runtime.driver.active.get_current_target().arch
