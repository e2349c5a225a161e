"""The flat prices of a compiled loop are, to the bit, those of the roofline and its grants."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from allocators.base import Geometry, Grant
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline, Work
from harness.cost.flat import copies_s, maps_s, step
from harness.cost.software import SoftwareSpec
from harness.engine.compiled.clock import StepWork
from tests.places import CONF

POOL = Geometry(100_000, 64, 4096, layers=2, kv_heads=8, head_dim=512, ranks=2)
ALLOCATORS = {
    "paged": Paged(POOL, block_size=8),
    "contiguous": Contiguous(POOL),
    "virtual": Virtual(POOL, page_size="64KiB"),
}
MODELS = ("codellama-34b", "qwen3-30b-a3b", "llama-tiny")
SOFTWARE = ("nominal", "ideal", "vllm-2023", "vllm-v0", "vllm-v1", "sglang")


def conf(group, name, kind):
    return kind(**yaml.safe_load((CONF / group / f"{name}.yaml").read_text()))


def roofline(model, software, **cost):
    hardware = replace(conf("hardware", "a100-80gb", HardwareSpec), count=2)
    profile = conf("software", software, SoftwareSpec)
    return Roofline(conf("model", model, ModelShape), hardware, CostSpec(**cost), profile)


def drawn_step(rng, block_tokens):
    """Return a step as `Work` and as the whole numbers of a compiled loop."""
    decodes, pieces = int(rng.integers(0, 40)), int(rng.integers(0, 4))
    pieces += not decodes and not pieces
    lengths = rng.integers(1, 4000, decodes)
    new, past = rng.integers(1, 700, pieces), rng.integers(0, 3000, pieces)
    longest = int(max(lengths.max(initial=0), (new + past).max(initial=0)))
    sampled, rows = decodes + int(rng.integers(0, pieces + 1)), decodes + pieces
    wide = -(-longest // block_tokens) if block_tokens else 0
    work = Work(new, past, decodes, int(lengths.sum()), sampled, rows * wide * 4, block_tokens)
    own, read = int(new.sum()), int((new + past).sum())
    crossed, squares = int((new * past).sum()), int((new * new).sum())
    context = int(lengths.sum())
    return work, StepWork(
        decodes, context, pieces, own, read, crossed, squares, sampled, rows, longest
    )


@pytest.mark.parametrize("software", SOFTWARE)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_step_has_the_same_price(name, model, software):
    rng, allocator = np.random.default_rng(0), ALLOCATORS[name]
    cost = roofline(model, software, roofline_exponent=2.5)
    prices = cost.flatten(allocator)
    for _ in range(50):
        work, flat = drawn_step(rng, prices.block_tokens)
        assert step(prices, flat) == cost.step(work)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_grant_has_the_same_price(name):
    allocator, cost = ALLOCATORS[name], roofline("codellama-34b", "nominal")
    prices = cost.flatten(allocator)
    copies = np.array([[0, 10, 5], [20, 40, 8]])
    assert copies_s(prices, 13) == cost.grant_s(Grant(copies=copies), allocator)
    if allocator.pages_per_group:
        grant = Grant(maps=np.zeros((3, 3), dtype=int), unmaps=np.zeros((2, 3), dtype=int))
        assert maps_s(prices, 3, 2) == cost.grant_s(grant, allocator)
