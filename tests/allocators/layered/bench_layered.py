"""Host time of a decode step with layer groups: measures; asserts nothing about time.

python -m pytest -o addopts= --benchmark-only --benchmark-timer=time.process_time \
    tests/allocators/layered/bench_layered.py
"""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt
from allocators.layered.jenga import Jenga
from allocators.layers import LayerGroup
from allocators.paged import Paged
from allocators.virtual import Virtual

LAYER_BYTES = 2 * 16 * 128 * 2  # keys and values of one layer of Gemma 3 27B, bf16
#: 62 layers, each sixth keeps every token
GROUPS = (
    LayerGroup("full", 10, 10 * LAYER_BYTES),
    LayerGroup("sliding", 52, 52 * LAYER_BYTES, window=1024),
)
GEOMETRY = Geometry(
    capacity_tokens=800_000,
    max_seqs=256,
    max_len=4096,
    layer_groups=GROUPS,
    pool_bytes=256 * 2048 * 62 * LAYER_BYTES,
    step_tokens=8192,
)
#: 7 tables of 10 layers or fewer, as vLLM spreads them; a table for each layer group; the same
KINDS = {"paged": Paged, "jenga": Jenga, "virtual": Virtual}
STEPS = 64


def filled(kind):
    """Return a policy with 256 sequences, most of them longer than the window, and their rows."""
    allocator = KINDS[kind].of(GEOMETRY)
    prompts = np.random.default_rng(0).integers(500, 1_900, 256)
    for row, prompt in enumerate(prompts.tolist()):
        demand = Demand(prompt, STEPS + 1)
        assert allocator.admit(np.array([row]), Prompt(prompt), demand) is not None
        allocator.begin_step()
    rows = np.arange(256)
    assert allocator.grow(rows) is not None  # what lay behind the prompts' windows is gone
    allocator.begin_step()
    return (allocator, rows, prompts + STEPS + 1), {}


@pytest.mark.parametrize("kind", KINDS)
def test_decode_steps_of_256_sequences(kind, benchmark):
    """64 of them, each a growth by one slot and the end of a step's planning."""

    def decode(allocator, rows, finals):
        for _ in range(STEPS):
            assert allocator.grow(rows) is not None
            allocator.begin_step()

    benchmark.extra_info["steps"] = STEPS
    benchmark.pedantic(decode, setup=lambda: filled(kind), rounds=8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_steps_at_once(kind, benchmark):
    """Where nobody waits for memory: as many at once as the policy allows, and their accounts."""

    def decode(allocator, rows, finals):
        left = STEPS
        while left:
            n = max(1, allocator.lone_steps(rows, left))
            grow = allocator.take_steps if n > 1 else allocator.grow
            assert grow(rows, n) is not None
            allocator.begin_step()
            allocator.usage(rows, finals, n)
            left -= n

    benchmark.extra_info["steps"] = STEPS
    benchmark.pedantic(decode, setup=lambda: filled(kind), rounds=8)


@pytest.mark.parametrize("kind", KINDS)
def test_usage_of_256_sequences(kind, benchmark):
    (allocator, rows, finals), _ = filled(kind)
    benchmark(lambda: allocator.usage(rows, finals))
