"""Replayed decoding gives what computing it gives; the capture itself needs a GPU."""

import numpy as np
import pytest
import torch

import kernels
from allocators.base import Demand, Prompt
from allocators.paged import Paged
from harness.executors.model.forward import Forward, Pieces
from kernels.memory import backing_for
from tests.executors.model.serving_cases import (
    ROOMY_TOKENS,
    contiguous,
    decoder_of,
    geometry,
    paged,
    requests,
    serve,
    virtual,
)
from tests.kernels.host_reads import no_host_reads
from tests.kernels.memory.cases import execute


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


@pytest.mark.parametrize("name", MEMORIES)
def test_rows_that_fill_a_batch_up_attend_to_one_token_and_store_nothing_of_their_own(
    monkeypatch, name
):
    kept, seen = [], []
    attend = kernels.decode
    monkeypatch.setattr(
        kernels, "decode", lambda *a, **k: seen.append(a[3].lengths) or attend(*a, **k)
    )
    for capture in (None, Again()):
        allocator = MEMORIES[name]()
        with backing_for(allocator, dtype=torch.float32) as memory, torch.inference_mode():
            forward = Forward(decoder_of("llama"), allocator, memory, "cpu")
            rows, lengths = np.arange(3), np.array([5, 20, 33])
            for row, n in zip(rows, lengths, strict=True):
                grant = allocator.admit(rows[row : row + 1], Prompt(int(n)), Demand(int(n), 4))
                execute(memory, allocator, grant)
            prompts = Pieces(rows, np.zeros(3, int), lengths, np.arange(lengths.sum()) % 190)
            forward.run(prompts)
            forward = Forward(decoder_of("llama"), allocator, memory, "cpu", capture=capture)
            seen.clear()
            hidden = forward.run(Pieces(rows, lengths - 1, lengths, np.array([7, 8, 9])))
            slots = kernels.new_slots(allocator.layout(rows), lengths)
            kept.append([hidden] + [
                kernels.load(cache, slots) for i in range(2)
                for cache in (memory.keys(i), memory.values(i))
            ])  # fmt: skip
            forward.close()
    assert seen[-1].tolist() == [5, 20, 33, 1]
    for a, b in zip(*kept, strict=True):
        assert torch.equal(a, b)


def test_lengths_of_captured_passes_double():
    """A pass is launched for the longest row that it may have."""
    allocator = Paged(geometry(tokens=9000, max_len=5000, max_seqs=1), block_size=7)
    with backing_for(allocator, dtype=torch.float32) as memory:
        forward = Forward(decoder_of("llama"), allocator, memory, "cpu", capture=Again())
        forward.warm_up()
        assert [longest for _, longest in forward._graphs._entries] == [1024, 2048, 4096, 8192]
        forward.close()
