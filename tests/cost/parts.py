"""The seconds of each part of a step, which the cost models only ever add up."""

import numpy as np


def roofline_parts(roof, work):
    """Return {part: seconds} of a step; their sum is `step_s` up to rounding."""
    tokens = int(work.prefill_new.sum()) + work.decode_seqs
    if not tokens:
        return {}
    context = float(work.decode_context_tokens)
    return {
        "linear": roof._linear_s(tokens, work.sampled),
        "elementwise": max(roof._elementwise_floor_s, tokens * roof._elementwise_s),
        "prefill": roof._prefill_s(work.prefill_new, work.prefill_past, work.block_tokens)
        if work.prefill_new.any()
        else 0.0,
        "decode": roof._decode_s(work.decode_seqs, context, work.block_tokens)
        if work.decode_seqs
        else 0.0,
        "all_reduce": roof._reduce_floor_s + tokens * roof._reduce_token_s,
        "tables": roof._table_s(work.table_bytes),
        "software": _cpu_s(roof.software.spec, work, tokens),
    }


def _cpu_s(spec, work, tokens):
    pieces = int(np.count_nonzero(work.prefill_new))
    us = spec.step_us + spec.sequence_us * (work.decode_seqs + pieces) + spec.token_us * tokens
    return 1e-6 * (us + spec.prefill_us * pieces + spec.sampling_us * work.sampled)


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
