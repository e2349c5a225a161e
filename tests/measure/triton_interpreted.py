"""Triton's kernels over each way in which rows of the curve lie; run by test_curve in a process."""

import os
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from harness.measure.contenders import Arena, AttentionBatch
from kernels import decode, place, prefill

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_curve.py"


@pytest.mark.parametrize("heads", [(5, 5, 64), (8, 2, 64)], ids=["padded", "whole"])
@pytest.mark.parametrize(
    "batch",
    [AttentionBatch.of(2, 260, ragged=True), AttentionBatch.of(1, 210, 20)],
    ids=["decode", "prefill"],
)
def test_triton_reads_every_contender_in_place(heads, batch):
    lengths, new = np.array(batch.lengths), np.array(batch.new)
    q = torch.randn(int(new.sum()), heads[0], 64)
    kernel, more = (prefill, (None,)) if batch.mode == "prefill" else (decode, ())
    with ExitStack() as held:
        arena = Arena(heads, torch.float32, torch.device("cpu"), 8 << 20, held)
        assert not arena.refused
        for who in arena.contenders("triton"):
            (keys, values), layout = arena._laid_out(who, lengths)
            rows = place(layout, keys, new)
            found, expected = (
                kernel(q, keys, values, rows, *more, 0.125, backend=backend)
                for backend in ("triton", "reference")
            )
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
