"""The seconds of each part of a step, which the cost models only ever add up."""

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES
from harness.cost import flat


def roofline_parts(roof, work):
    """Return {part: seconds} of a step; their sum is `step_s` up to rounding."""
    tokens = int(work.prefill_new.sum()) + work.decode_seqs
    if not tokens:
        return {}
    prices, new, past = roof.of_blocks(work.block_tokens), work.prefill_new, work.prefill_past
    pieces = [int(sums.sum()) for sums in (new, new + past, new * past, new * new)]
    return {
        "linear": flat.linear_s(prices, tokens, work.sampled),
        "elementwise": max(prices.elementwise_floor_s, tokens * prices.elementwise_s),
        "prefill": flat.prefill_s(prices, *pieces) if new.any() else 0.0,
        "decode": flat.decode_s(prices, work.decode_seqs, float(work.decode_context_tokens))
        if work.decode_seqs
        else 0.0,
        "all_reduce": prices.reduce_floor_s + tokens * prices.reduce_token_s,
        "tables": flat.tables_s(prices, work.table_bytes) if work.table_bytes else 0.0,
        "software": _cpu_s(roof.software.spec, work, tokens),
    }


def _cpu_s(spec, work, tokens):
    pieces = int(np.count_nonzero(work.prefill_new))
    us = spec.step_us + spec.sequence_us * (work.decode_seqs + pieces) + spec.token_us * tokens
    seconds = 1e-6 * (us + spec.prefill_us * pieces + spec.sampling_us * work.sampled)
    if spec.overlapped:  # else the entries of tables are written in `tables`
        seconds += 1e-9 * spec.table_entry_ns * work.table_bytes / BLOCK_TABLE_ENTRY_BYTES
    return seconds


def calibrated_parts(cost, work):
    """Return {part: seconds} of a step; their sum is `step_s` up to rounding."""
    pieces = int(np.count_nonzero(work.prefill_new))
    tokens = int(work.prefill_new.sum()) + work.decode_seqs
    if not tokens:
        return {}
    context = np.array([work.decode_context_tokens], dtype=np.float64)
    return {
        "linear": cost._linear_s(tokens),
        "store": cost.model.layers * cost._store.one(tokens),
        "prefill": cost._prefill_s(work.prefill_new, work.prefill_past, work.block_tokens)
        if pieces
        else 0.0,
        "decode": float(cost._decode_s(work.decode_seqs, context, work.block_tokens)[0])
        if work.decode_seqs
        else 0.0,
        "sample": cost._sample_s(work.sampled),
        "table": float(cost._table_s(np.array([work.table_bytes]))[0]),
        "overhead": cost._overhead.one(work.decode_seqs + pieces),
    }
