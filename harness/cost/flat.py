"""The roofline's formula: constants as one tuple, the price of a step as plain functions.

`Roofline` calls them as Python, also for many steps at once; the compiled loop, which has neither
swaps nor drafts, calls them compiled.  What varies while a batch just decodes takes a number or an
array, so that n steps at once have the very bits of n single steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from allocators.base import IntArray
from harness.cost.curves import FloatArray

Number = TypeVar("Number", float, FloatArray)


class FlatPrices(NamedTuple):
    """The constants of a `Roofline`, for blocks of one size; seconds and bytes.

    Grants have prices beside one allocator alone.
    """

    # linear layers; what is read of weights is in numbers of `weight_s`, whatever bits they have
    flops_weights: float
    always: float
    expert: float
    experts: int
    active_experts: int
    head: float
    head_read: float
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
    calls: int = 0
    map_s: float = 0.0
    unmap_s: float = 0.0
    copy_launch_s: float = 0.0
    copy_byte_s: float = 0.0
    bytes_per_token: int = 0
    ranks: int = 1


class Priced(NamedTuple):
    """The seconds in which a step computes, and of those what the GPU spends on each part.

    `linear_s` are matrix products and the small kernels between them; what remains is software, as
    far as the GPU does not hide it.  Numbers of one step, or [steps] of several: those that are the
    same in all may be a number.
    """

    seconds: float | FloatArray
    linear_s: float | FloatArray
    attention_s: float | FloatArray
    all_reduce_s: float | FloatArray


NOTHING = Priced(0.0, 0.0, 0.0, 0.0)


def step(prices: FlatPrices, work: Any) -> Priced:
    """Return what a step takes, and on what; `work` is the loop's `StepWork`, in whole numbers."""
    sent, tables = 0, 0.0
    if prices.block_tokens:
        wide = -(-work.longest // prices.block_tokens)
        sent = work.rows * wide * prices.entry_bytes
        tables = tables_s(prices, sent)
    tokens, rows = work.own + work.decodes, work.decodes + work.pieces
    layers, reduce = layers_s(prices, tokens, work.sampled), reduce_s(prices, tokens)
    attention = 0.0
    seconds = before_s(prices, layers + reduce, rows, tokens, work.pieces, work.sampled)
    if work.own:
        attention = prefill_s(prices, work.own, work.read, work.crossed, work.squares)
        seconds += attention
    if work.decodes:
        decode = decode_s(prices, work.decodes, work.context)
        seconds += decode
        attention += decode
    seconds += tables
    seconds = beside_s(prices, seconds, rows, tokens, work.pieces, work.sampled, sent)
    return Priced(seconds, layers, attention, reduce)


# -- parts of a step -------------------------------------------------------------------------------
def layers_s(prices: FlatPrices, tokens: int, sampled: int) -> float:
    """Return the seconds of linear layers and of the small kernels between them."""
    small = max(prices.elementwise_floor_s, tokens * prices.elementwise_s)
    return linear_s(prices, tokens, sampled) + small


def reduce_s(prices: FlatPrices, tokens: int) -> float:
    """Return the seconds of all-reduce."""
    return prices.reduce_floor_s + tokens * prices.reduce_token_s


def before_s(
    prices: FlatPrices, gpu_s: float, rows: int, tokens: int, pieces: int, sampled: int
) -> float:
    """Return the GPU's time of what does not depend on lengths, and the CPU's if it shows."""
    if prices.overlapped:
        return gpu_s
    return _with_cpu_s(prices, gpu_s, rows, tokens, pieces, sampled)


def linear_s(prices: FlatPrices, tokens: int, sampled: int) -> float:
    """Return the seconds of all matrix products but those of attention."""
    touched = 1.0
    if prices.experts > 1:  # the expected number of distinct ones read, with uniform routing
        missed = 1 - prices.active_experts / prices.experts
        touched = prices.experts * (1 - missed ** float(tokens))
    weights = prices.always + touched * prices.expert
    body = matmul_s(prices, 2 * tokens * prices.flops_weights, weights)
    if not sampled:
        return body
    return body + matmul_s(prices, 2 * sampled * prices.head, prices.head_read)


def matmul_s(prices: FlatPrices, flops: float, weights: float) -> float:
    """Return the seconds of matrix products of `flops` in all that read `weights` numbers."""
    p = prices.exponent
    return ((flops * prices.gemm_s) ** p + (weights * prices.weight_s) ** p) ** (1 / p)


def prefill_s(prices: FlatPrices, own: int, read: int, crossed: int, squares: int) -> float:
    """Causal attention of pieces: 4 FLOP a (query, key, channel), or their bytes if slower.

    The sums are those of `StepWork`.
    """
    # Whole numbers and halves, so that this is exact, in whatever order it is summed.
    half = (float(squares) + prices.prefill_tile_tokens * own) / 2
    compute = (crossed + half) * prices.prefill_pair_s
    memory = float(read) * prices.prefill_kv_s + float(own) * prices.prefill_query_s
    return prices.prefill_floor_s + prices.prefill_slowdown * max(compute, memory)


def decode_s(prices: FlatPrices, seqs: int, context: Number) -> Number:
    """Return the seconds of attention of `seqs` new tokens, which read `context` slots in all."""
    return (prices.decode_floor_s + seqs * prices.decode_seq_s) + context * prices.decode_context_s


def tables_s(prices: FlatPrices, sent: Number) -> Number:
    """Return the seconds of block tables of so many bytes, not 0."""
    return prices.table_floor_s + sent * prices.table_byte_s


def beside_s(
    prices: FlatPrices,
    seconds: Number,
    rows: int,
    tokens: int,
    pieces: int,
    sampled: int,
    sent: int | IntArray,
) -> Number:
    """Return how long a step takes that the GPU computes for so long; the CPU may take longer."""
    if not prices.overlapped:
        return seconds
    cpu_s = _with_cpu_s(prices, 0.0, rows, tokens, pieces, sampled)
    return np.maximum(seconds, cpu_s + sent * prices.written_byte_s)


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


# -- a grant ---------------------------------------------------------------------------------------
def copies_s(prices: FlatPrices, slots: int) -> float:
    """Return the seconds of a grant that copies so many slots."""
    moved = slots * prices.bytes_per_token / prices.ranks
    return prices.copy_launch_s + moved * prices.copy_byte_s


def maps_s(prices: FlatPrices, maps: int, unmaps: int) -> float:
    """Return the seconds of a grant that maps and unmaps so many page-groups."""
    return prices.calls * (unmaps * prices.unmap_s + maps * prices.map_s)
