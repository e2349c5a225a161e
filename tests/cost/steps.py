"""Steps that the cost models price."""

from types import SimpleNamespace

import numpy as np

from allocators.base import Allocator
from harness.cost import Work


def decode(seqs, context, **more):
    """Return a step of `seqs` sequences that decode, and each sample, over `context` tokens."""
    return Work(decode_seqs=seqs, decode_context_tokens=context, sampled=seqs, **more)


def prefill(new, past=None, **more):
    """Return a step of prompt pieces; without `past` they are the first of their prompts."""
    new = np.array(new, dtype=np.int64)
    past = np.zeros_like(new) if past is None else np.array(past, dtype=np.int64)
    return Work(prefill_new=new, prefill_past=past, **more)


def step_by_step_s(cost, seqs, context, steps, table_bytes, block_tokens):
    """Return the seconds that `cost.decode_window_s` has to give, from each step by itself."""
    sent = np.broadcast_to(table_bytes, steps).tolist()
    single = [
        cost.step_s(
            decode(seqs, context + j * seqs, table_bytes=sent[j], block_tokens=block_tokens)
        )
        for j in range(steps)
    ]
    return np.array(single, dtype=np.float64)


class Pool(SimpleNamespace):
    """What a cost model asks of an allocator: geometry, page_bytes, pages_per_group."""

    driver_calls = Allocator.driver_calls
