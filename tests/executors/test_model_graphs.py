"""Replayed decoding gives what computing it gives; the capture itself needs a GPU."""

import pytest
import torch
from executors.serving_cases import ROOMY_TOKENS, contiguous, paged, requests, serve, virtual


class Again:
    """Stands in for a captured graph: runs the work anew, on the buffers as they are by then."""

    captures = replays = 0

    def __call__(self, work):
        Again.captures += 1
        out = work()
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
    assert Again.replays > 2 * Again.captures > 2, "sizes were captured, and used again"
