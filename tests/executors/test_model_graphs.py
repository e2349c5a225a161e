"""Replayed decoding gives what computing it gives; the capture itself needs a GPU."""

import pytest
import torch
from executors.serving_cases import ROOMY_TOKENS, contiguous, paged, requests, serve, virtual


class Again:
    """Stands in for a captured graph: does the work anew, on the buffers as they are by then."""

    captures = replays = 0

    def __call__(self, work, warm_up):
        Again.captures += 1
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
