"""What a run compiles, it compiles while it warms up: no timed step, and no capture, may."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch

from allocators.base import Demand, Prompt
from allocators.contiguous import Contiguous
from allocators.layered.jenga import Jenga
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.executors.model.decoder import build_decoder
from harness.executors.model.forward import Forward, Pieces
from harness.executors.model.graphs import CudaCapture
from kernels import copy_slots, decode
from kernels.memory import backing_for
from tests.executors.model.serving_cases import (
    GEMMA,
    GPT_OSS,
    LLAMA,
    contiguous,
    geometry,
    paged,
    virtual,
)
from tests.kernels.cases import make

pytest.importorskip("triton")

from tests.kernels.fake_triton import launches

#: a token of one tensor takes 1,536 bytes, so that a page-group holds 42 tokens and a rest
UNEVEN = replace(LLAMA, heads=6, kv_heads=3)
#: more than 2^31 numbers lie between the first and the last range
FAR = 1 << 18

MEMORIES = {
    "flat": lambda shape: contiguous(6000, shape=shape, reservation="grow"),
    "paged": lambda shape: paged(2000, shape=shape, block_size=7),
    "paged 1": lambda shape: paged(2000, shape=shape, block_size=1),
    "padded": lambda shape: virtual(6000, shape=shape),
    "whole": lambda shape: virtual(6000, shape=shape, layout="sliced"),
    "far": lambda shape: Virtual(geometry(shape, 6000, max_len=FAR), page_size="64KiB"),
}


@cache
def model(name, dtype):
    """Return the shape and a decoder of it; Hopper has tiles of two sizes for 16-bit numbers."""
    shape = replace(UNEVEN if name == "padded" else LLAMA, dtype_bytes=dtype.itemsize)
    made = build_decoder(
        shape, device="cpu", dtype=dtype, seed=7, weights=None, batch_invariant=True
    )
    return shape, made


class Captures:
    """A capture that notes what was compiled in it."""

    def __init__(self, seen):
        self.seen, self.captured, self.inside = seen, 0, []

    def __call__(self, work, warm_up):
        warm_up()
        before = len(self.seen.compiled)
        out = work()
        self.captured += 1
        self.inside += self.seen.compiled[before:]
        return Replay(), out


class Replay:
    def replay(self):
        pass


def batches(allocator):
    """Yield pieces of sequences: prompts, chunks and decodes of many sizes."""
    rng = np.random.default_rng(0)
    rows = np.arange(24)
    for row in rows:
        assert allocator.admit(rows[row : row + 1], Prompt(48), Demand(48, 8)) is not None
    for count in (1, 2, 3, 16, 17, 24):
        some = rng.permutation(rows)[:count]
        for stops in (np.full(count, 5), np.full(count, 48), rng.integers(2, 49, count)):
            for new in (np.ones(count, dtype=np.int64), stops, np.minimum(stops, 2)):
                # Who decodes comes first.
                order = np.argsort(new > 1, kind="stable")
                part = (some[order], (stops - new)[order], stops[order])
                yield Pieces(*part, np.zeros(int(new.sum()), dtype=np.int64))


@contextmanager
def nothing_is_compiled_late(decoder, allocator, memory, graphs, single):
    """Warm up and run all batches; assert that no kernel is compiled from then on."""
    with launches() as seen:
        captures = Captures(seen)
        capture = captures if graphs else None
        forward = Forward(decoder, allocator, memory, "triton", single=single, capture=capture)
        forward.warm_up()
        warm = len(seen.compiled)
        assert warm
        for pieces in batches(allocator):
            forward.run(pieces)
        yield
        forward.close()
    assert not captures.inside, "compiled within a capture"
    assert captures.captured >= (6 if graphs else 0)
    assert not seen.compiled[warm:]


#: with graphs or one by one, of numbers of 32 bits or 16: pages take all in each run, of the other
#: memories any two together, and the rest with `further`
WAYS = [
    pytest.param(
        name, graphs, single, dtype, id=f"{name}-{graphs}-{single}-{dtype}",
        marks=[] if name == "paged" or (graphs != single and wide == (graphs + i) % 2)
        else [pytest.mark.further],
    )
    for i, name in enumerate(MEMORIES)
    for graphs in (False, True)
    for single in (False, True)
    for wide, dtype in enumerate((torch.bfloat16, torch.float32))
]  # fmt: skip


@pytest.mark.parametrize(("name", "graphs", "single", "dtype"), WAYS)
def test_everything_is_compiled_before_the_first_step(name, dtype, graphs, single):
    shape, decoder = model(name, dtype)
    allocator = MEMORIES[name](shape)
    with (
        backing_for(allocator, dtype=dtype) as memory,
        nothing_is_compiled_late(decoder, allocator, memory, graphs, single),
    ):
        caches = [memory.keys(0)]
        if hasattr(memory, "shape"):
            caches = [memory.shape.pages(whole) for whole in memory._tensors]
        for copies in ([[0, 1, 1]], [[0, 1, 1], [1, 0, 1]], [[0, 20, 17]]):
            copy_slots(caches, np.array(copies), backend=memory.mover)


#: policy and knobs, and whether a page-group of some layer group has a rest behind its tokens
LAYERED = {
    "paged": (Paged, {"block_size": 4}),
    "jenga": (Jenga, {"block_size": 4}),
    "contiguous": (Contiguous, {"reservation": "max", "placement": "first_fit"}),
    "padded": (Virtual, {"page_size": "64KiB"}),
    "sliced": (Virtual, {"page_size": "64KiB", "layout": "sliced"}),
}
LAYERED_WAYS = [
    pytest.param(
        name, graphs, single, dtype, id=f"{name}-{graphs}-{single}-{dtype}",
        marks=[] if (name, graphs, single, dtype.itemsize) in (
            ("paged", True, False, 2), ("padded", True, False, 4),
        ) else [pytest.mark.further],
    )
    for name in LAYERED
    for graphs, single in ((True, False), (True, True), (False, False))
    for dtype in (torch.float32, torch.bfloat16)
]  # fmt: skip


@pytest.mark.parametrize(("name", "graphs", "single", "dtype"), LAYERED_WAYS)
def test_layer_groups_are_compiled_for_before_the_first_step(name, graphs, single, dtype):
    """Windows, sinks, and pages of other sizes in each layer group."""
    # Gemma's page-groups of all layers hold five times as many tokens of one layer as of five.
    shape = GEMMA if name == "sliced" else GPT_OSS
    shape = replace(shape, heads=6, kv_heads=3, dtype_bytes=dtype.itemsize)
    decoder = build_decoder(
        shape, device="cpu", dtype=dtype, seed=7, weights=None, batch_invariant=True
    )
    policy, knobs = LAYERED[name]
    allocator = policy.of(geometry(shape, 4000, max_seqs=24, step_tokens=64), **knobs)
    with (
        backing_for(allocator, dtype=dtype) as memory,
        nothing_is_compiled_late(decoder, allocator, memory, graphs, single),
    ):
        pass


def test_a_capture_in_which_something_would_be_compiled_is_refused():
    cases = [make([20], page=page) for page in (7, 9)]

    def work(case):
        return lambda: decode(*case.args, case.scale, backend="triton")

    made_up = {name: mock.MagicMock() for name in ("Stream", "current_stream", "CUDAGraph")}
    made_up |= {"stream": nullcontext, "graph": lambda *args, **options: nullcontext()}
    with mock.patch.multiple(torch.cuda, **made_up), launches() as seen:
        CudaCapture()(work(cases[0]), work(cases[0]))
        with pytest.raises(RuntimeError, match=r"compile within a capture: .*decode_split"):
            CudaCapture()(work(cases[1]), work(cases[0]))
        assert len(seen.compiled) == 2
        CudaCapture()(work(cases[1]), work(cases[1]))
    assert {name for name, *_ in seen.compiled} == {"decode_split", "decode_reduce"}
