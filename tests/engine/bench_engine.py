"""Speed of the engine's hot path: one decode step of a full batch, and a run.

python -m pytest -o addopts= --benchmark-only tests/engine/bench_engine.py
"""

from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt
from tests.engine.cases import MODES, allocators, drawn, make, roofline

#: OPT-13B's shape, 256 sequences of up to 2048 tokens
WIDE = Geometry(200_000, 256, 2048, layers=40, kv_heads=40, head_dim=128)
MAX_NEEDS = replace(WIDE, capacity_tokens=256 * 2048)
NAMES = ("contiguous_max", "contiguous_oracle", "contiguous_grow", "paged_16", "virtual")
STEPS = 64


def full(name):
    """Return an allocator that holds 256 sequences of different lengths, and their ends."""
    pool = MAX_NEEDS if name == "contiguous_max" else WIDE
    allocator = allocators(pool)[name]()
    prompts = np.random.default_rng(0).integers(50, 350, 256)
    for seq, prompt in enumerate(prompts.tolist()):
        demand = Demand(prompt, STEPS + 40)
        assert allocator.admit(np.array([seq]), Prompt(prompt), demand) is not None
    return (allocator, np.arange(256), prompts + STEPS + 39), {}


@pytest.mark.parametrize("name", NAMES)
def test_a_decode_step_of_256_sequences(name, benchmark):
    """64 of them, each a growth by one slot and an account of the pool."""

    def decode(allocator, rows, finals):
        for _ in range(STEPS):
            assert allocator.grow(rows, 1) is not None
            allocator.usage(rows, finals)

    benchmark.extra_info["steps"] = STEPS
    benchmark.pedantic(decode, setup=lambda: full(name), rounds=10)


@pytest.mark.parametrize("skip", [False, True], ids=["stepwise", "skipping"])
@pytest.mark.parametrize("mode", ["greedy", "beam"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_300_requests(name, mode, skip, benchmark):
    if mode == "beam" and skip:
        pytest.skip("beams take every step")
    requests = drawn(300, seed=1, longest=(1000, 1000))
    requests.prompt_tokens = requests.prompt_tokens * 9
    requests.output_tokens = requests.output_tokens * 8
    pool = replace(WIDE, capacity_tokens=15_728)

    def engine():
        allocator = allocators(pool)[name]()
        return (make(allocator, requests, MODES[mode], roofline(allocator), skip_ahead=skip),), {}

    benchmark.pedantic(lambda engine: engine.run("x"), setup=engine, rounds=2)
