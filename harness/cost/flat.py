"""The roofline's formula for a compiled loop: constants as one tuple, prices as plain functions.

This repeats `Roofline.step`, `GrantPrices.grant_s` and `Software` in the part of Python that
Numba compiles, for steps of single sequences without swaps: the one place where prices are written
twice.  `tests/cost/test_flat.py` holds both to the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, Allocator
from harness.cost.priced import Priced
from harness.cost.roofline import Roofline, block_slowdown


class FlatPrices(NamedTuple):
    """The constants of a `Roofline`, beside one allocator's geometry; seconds and bytes."""

    # linear layers
    flops_weights: float
    always: float
    expert: float
    experts: int
    active_experts: int
    head: float
    gemm_s: float
    weight_s: float
    exponent: float
    # small kernels, all-reduce
    elementwise_floor_s: float
    elementwise_s: float
    reduce_floor_s: float
    reduce_token_s: float
    # attention
    decode_floor_s: float
    decode_seq_s: float
    decode_context_s: float
    prefill_floor_s: float
    prefill_tile_tokens: float
    prefill_pair_s: float
    prefill_kv_s: float
    prefill_query_s: float
    prefill_slowdown: float
    # block tables: no tables where block_tokens is 0
    block_tokens: int
    entry_bytes: int
    table_floor_s: float
    table_byte_s: float
    # software
    overlapped: bool
    written_byte_s: float  # of a table, by the host
    sampling_s: float
    step_s: float
    sequence_s: float
    token_s: float
    piece_s: float
    # grants
    calls: int
    map_s: float
    unmap_s: float
    copy_launch_s: float
    copy_byte_s: float
    bytes_per_token: int
    ranks: int


def flatten(cost: Roofline, allocator: Allocator) -> FlatPrices:
    """Return the constants of a cost model, for steps and grants of this allocator."""
    geometry, stack, grants = allocator.geometry, cost.software.spec, cost._grants
    block_tokens = geometry.page_tokens if allocator.block_tables else 0
    decode = stack.paged_decode_slowdown if block_tokens else 1.0
    prefill = stack.paged_prefill_slowdown if block_tokens else 1.0
    decode_blocks = block_slowdown(cost.cost.block_decode_tokens, block_tokens)
    map_s, unmap_s = grants._call_s(allocator.page_bytes)
    return FlatPrices(
        flops_weights=float(cost._always + cost.model.active_experts * cost._expert),
        always=float(cost._always),
        expert=float(cost._expert),
        experts=cost.model.experts,
        active_experts=cost.model.active_experts,
        head=float(cost._head),
        gemm_s=cost._gemm_s,
        weight_s=cost._weight_s,
        exponent=float(cost.cost.roofline_exponent),
        elementwise_floor_s=float(cost._elementwise_floor_s),
        elementwise_s=cost._elementwise_s,
        reduce_floor_s=float(cost._reduce_floor_s),
        reduce_token_s=float(cost._reduce_token_s),
        decode_floor_s=float(cost._decode_floor_s),
        decode_seq_s=float(cost._decode_seq_s * decode),
        decode_context_s=float(cost._decode_context_s * decode * decode_blocks),
        prefill_floor_s=float(cost._prefill_floor_s),
        prefill_tile_tokens=float(cost.cost.prefill_tile_tokens),
        prefill_pair_s=float(cost._prefill_pair_s),
        prefill_kv_s=float(cost._prefill_kv_s),
        prefill_query_s=float(cost._prefill_query_s),
        prefill_slowdown=float(
            prefill * block_slowdown(cost.cost.block_prefill_tokens, block_tokens)
        ),
        block_tokens=block_tokens,
        entry_bytes=BLOCK_TABLE_ENTRY_BYTES,
        table_floor_s=float(cost._table_floor_s),
        table_byte_s=float(cost._table_byte_s),
        overlapped=bool(stack.overlapped),
        written_byte_s=float(cost.software.written_byte_s),
        sampling_s=stack.sampling_us * 1e-6,
        step_s=cost.software.step_s,
        sequence_s=stack.sequence_us * 1e-6,
        token_s=stack.token_us * 1e-6,
        piece_s=stack.prefill_us * 1e-6,
        calls=allocator.pages_per_group,
        map_s=map_s,
        unmap_s=unmap_s,
        copy_launch_s=cost.cost.copy_launch_us * 1e-6,
        copy_byte_s=float(grants._copy_byte_s),
        bytes_per_token=geometry.bytes_per_token,
        ranks=geometry.ranks,
    )


def step(prices: FlatPrices, work: Any) -> Priced:
    """Return what a step takes, and on what; `work` is the loop's `StepWork`, in whole numbers."""
    tokens = work.own + work.decodes
    rows = work.decodes + work.pieces
    linear = _linear_s(prices, tokens, work.sampled)
    linear += max(prices.elementwise_floor_s, tokens * prices.elementwise_s)
    reduce = prices.reduce_floor_s + tokens * prices.reduce_token_s
    gpu_s, attention = linear + reduce, 0.0
    if not prices.overlapped:
        gpu_s = _with_cpu_s(prices, gpu_s, rows, tokens, work.pieces, work.sampled)
    if work.own:
        # Whole numbers and halves, so that this is exact, in whatever order it is summed.
        half = (float(work.squares) + prices.prefill_tile_tokens * work.own) / 2
        compute = (work.crossed + half) * prices.prefill_pair_s
        memory = float(work.read) * prices.prefill_kv_s + float(work.own) * prices.prefill_query_s
        attention = prices.prefill_floor_s + prices.prefill_slowdown * max(compute, memory)
        gpu_s += attention
    if work.decodes:
        read = float(work.context) * prices.decode_context_s
        fixed = prices.decode_floor_s + work.decodes * prices.decode_seq_s
        gpu_s += fixed + read
        attention += fixed + read
    sent = 0
    if prices.block_tokens:
        wide = -(-work.longest // prices.block_tokens)
        sent = work.rows * wide * prices.entry_bytes
        gpu_s += prices.table_floor_s + float(sent) * prices.table_byte_s
    if prices.overlapped:
        cpu_s = _with_cpu_s(prices, 0.0, rows, tokens, work.pieces, work.sampled)
        gpu_s = max(gpu_s, cpu_s + sent * prices.written_byte_s)
    return Priced(gpu_s, linear, attention, reduce)


def copies_s(prices: FlatPrices, slots: int) -> float:
    """Return the seconds of a grant that copies so many slots."""
    moved = slots * prices.bytes_per_token / prices.ranks
    return prices.copy_launch_s + moved * prices.copy_byte_s


def maps_s(prices: FlatPrices, maps: int, unmaps: int) -> float:
    """Return the seconds of a grant that maps and unmaps so many page-groups."""
    return prices.calls * (unmaps * prices.unmap_s + maps * prices.map_s)


def _linear_s(prices: FlatPrices, tokens: int, sampled: int) -> float:
    touched = 1.0
    if prices.experts > 1:
        missed = 1 - prices.active_experts / prices.experts
        touched = prices.experts * (1 - missed ** float(tokens))
    weights = prices.always + touched * prices.expert
    body = _matmul_s(prices, 2 * tokens * prices.flops_weights, weights)
    if not sampled:
        return body
    return body + _matmul_s(prices, 2 * sampled * prices.head, prices.head)


def _matmul_s(prices: FlatPrices, flops: float, weights: float) -> float:
    p = prices.exponent
    return ((flops * prices.gemm_s) ** p + (weights * prices.weight_s) ** p) ** (1 / p)


def _with_cpu_s(
    prices: FlatPrices, seconds: float, rows: int, tokens: int, pieces: int, sampled: int
) -> float:
    return (
        seconds
        + sampled * prices.sampling_s
        + prices.step_s
        + rows * prices.sequence_s
        + tokens * prices.token_s
        + pieces * prices.piece_s
    )
