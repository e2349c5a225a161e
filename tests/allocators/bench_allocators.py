"""Host time of the allocators' hot calls: `make bench`. Measures; asserts nothing about time.

python -m pytest -o addopts= --benchmark-only tests/allocators/bench_allocators.py
"""

from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual

GEOMETRY = Geometry(
    capacity_tokens=400_000, max_seqs=264, max_len=2048, layers=40, kv_heads=40, head_dim=128
)
KINDS = {"contiguous": Contiguous, "paged": Paged, "virtual": Virtual}
PROMPT, OUTPUT = 200, 300
#: 64 blocks of 16
LONG = 1024
#: 1,000 blocks of 16
MATCHED = 16_000


@pytest.fixture(params=KINDS)
def filled(request):
    """An allocator with a batch of 256 sequences of different lengths, and their numbers."""
    knobs = {"reservation": "oracle"} if request.param == "contiguous" else {}
    allocator = KINDS[request.param](GEOMETRY, **knobs)
    rows = np.arange(256)
    for row in rows.tolist():
        prompt = PROMPT + row % 64
        granted = allocator.admit(np.array([row]), Prompt(prompt), Demand(prompt, OUTPUT))
        assert granted is not None
    return allocator, rows


def test_admit_and_release(benchmark, filled):
    allocator, _ = filled
    row = np.array([260])
    prompt, demand = Prompt(LONG), Demand(LONG, OUTPUT)

    def once():
        allocator.admit(row, prompt, demand)
        allocator.release(row)

    benchmark(once)


@pytest.mark.parametrize("keys", ["known", "new"])
@pytest.mark.parametrize("index", ["hash", "radix"])
def test_match_a_prefix_of_1000_blocks(benchmark, index, keys):
    """Of a prompt that was just looked up, as before its admission, and of one never seen."""
    allocator = Paged(replace(GEOMETRY, max_len=MATCHED + 2), prefix_index=index)
    ids = np.random.default_rng(0).integers(0, 50_000, MATCHED + 1)
    prompt = Prompt(MATCHED + 1, ids)
    assert allocator.admit(np.array([0]), prompt, Demand(MATCHED + 1, 1)) is not None
    prompts = [prompt, Prompt(MATCHED + 1, ids if keys == "known" else ids.copy())]

    def once():
        prompts.reverse()
        return allocator.lookup(prompts[0])

    assert benchmark(once) == MATCHED


def test_grow_a_batch_by_one(benchmark, filled):
    allocator, rows = filled
    # Each round stays within the lengths that the oracle reserved.
    benchmark.pedantic(lambda: allocator.grow(rows), rounds=OUTPUT - 1, iterations=1)


def test_usage(benchmark, filled):
    allocator, rows = filled
    finals = np.full(len(rows), PROMPT + OUTPUT - 1)
    benchmark(lambda: allocator.usage(rows, finals))


def test_fork_and_release(benchmark, filled):
    allocator, _ = filled
    children = np.arange(258, 261)

    def once():
        allocator.fork(0, children, Demand(PROMPT, OUTPUT))
        allocator.release(children)

    benchmark(once)
