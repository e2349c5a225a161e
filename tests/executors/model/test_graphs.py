"""Replayed decoding gives what computing it gives; the capture itself needs a GPU."""

import numpy as np
import pytest
import torch

from allocators.base import Demand, Prompt
from harness.executors.model.forward import Forward, Pieces
from kernels.memory import backing_for
from tests.executors.model.serving_cases import (
    ROOMY_TOKENS,
    contiguous,
    decoder_of,
    paged,
    requests,
    serve,
    virtual,
)
from tests.kernels.host_reads import no_host_reads


class Again:
    """Stands in for a captured graph: does the work anew, on the buffers as they are by then."""

    captures = replays = 0

    def __call__(self, work, warm_up):
        Again.captures += 1
        with no_host_reads():
            out = warm_up().clone()
        return Replay(work, out), out


class Replay:
    def __init__(self, work, out):
        self._work, self._out = work, out

    def replay(self):
        Again.replays += 1
        with torch.inference_mode():
            self._out.copy_(self._work())


MEMORIES = {
    "flat": lambda: contiguous(ROOMY_TOKENS, reservation="grow"),
    "paged": lambda: paged(300, block_size=7),
    "padded": lambda: virtual(600),
    "whole": lambda: virtual(600, layout="sliced"),
}


@pytest.mark.parametrize("mode", ["greedy", "beam"])
@pytest.mark.parametrize("name", MEMORIES)
def test_replays_emit_the_same_tokens(name, mode):
    Again.captures = Again.replays = 0
    plain = serve(MEMORIES[name](), requests(), mode)
    replayed = serve(MEMORIES[name](), requests(), mode, capture=Again())
    assert replayed.digest == plain.digest
    assert 1 < Again.captures < Again.replays, "sizes were captured, and used again"


@pytest.mark.parametrize("name", MEMORIES)
def test_all_sizes_are_captured_before_there_is_any_kv(name):
    Again.captures = 0
    memory = MEMORIES[name]()
    seen = serve(memory, requests(), "beam", capture=Again(), warm_up=True)
    assert seen.digest == serve(MEMORIES[name](), requests(), "beam").digest
    # 1, 2, 4 .. 32 rows, and one length: nothing here is longer than 1,024
    assert Again.captures == 6


@pytest.mark.parametrize(("mode", "tokens"), [("greedy", 120), ("beam", 200)])
def test_tokens_that_attend_one_by_one_are_the_same(mode, tokens):
    single = serve(paged(tokens, block_size=7), requests(), mode, single=True)
    assert single.digest == serve(paged(tokens, block_size=7), requests(), mode).digest
    assert single.preemptions


def test_a_host_read_in_what_is_captured_is_noticed():
    with pytest.raises(AssertionError, match="the host reads a tensor"):
        serve(paged(300, block_size=7), requests(), capture=Again(), backend="reference")


def test_a_result_outlives_the_next_replay():
    """A plan may compute prompts of one token and then private tokens, by the same graph."""
    allocator = paged(300, block_size=7)
    memory = backing_for(allocator, dtype=torch.float32)
    forward = Forward(decoder_of("llama"), allocator, memory, "cpu", capture=Again())
    hidden = []
    for row, token in ((0, 3), (1, 4)):
        allocator.admit(np.array([row]), Prompt(1), Demand(1, 4))
        one = Pieces(np.array([row]), np.array([0]), np.array([1]), np.array([token]))
        hidden.append(forward.run(one))
        if row == 0:
            kept = hidden[0].clone()
    assert torch.equal(hidden[0], kept)
    assert not torch.equal(*hidden)
    forward.close()
    memory.close()
