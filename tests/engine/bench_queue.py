"""Cost of a step beside a long queue, for growing batches, of both loops.

python -m pytest -o addopts= --benchmark-only tests/engine/bench_queue.py

The batch is always full: whoever ends makes room for the head of the queue.  Each step is taken by
itself.  `us_a_step` is the mean over the steps in which as many requests end as run twice over.
"""

import numpy as np
import pytest

from allocators.base import Geometry
from harness.engine.compiled import engine as compiled
from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from tests.engine.cases import MODES, allocators, roofline, table
from tests.engine.compiled.both import over_arrays

BATCHES = (64, 256, 1024, 4096)
QUEUES = (1_000, 1_000_000)
PROMPT, OUTPUTS = 32, (100, 300)
#: a batch ends once in so many steps, the mean of `OUTPUTS`
LIFE = 200
STEPS = 2 * LIFE


class Enough(Exception):
    """The run has come as far as it is wanted to."""


class Count:
    """A sink that counts steps."""

    def __init__(self):
        self.taken = 0

    def steps(self, columns):
        self.taken += len(columns["step"])

    def ended(self, columns):
        pass

    def token_gaps(self, seconds, counts):
        pass


def advance(engine, ends):
    """Run until so many more have ended, a compiled loop for a block; return the steps."""

    def progress(ended):
        if engine.loop == "compiled" or ended >= ends:
            raise Enough

    count = Count()
    with pytest.raises(Enough):
        engine.serve(count, progress)
    return count.taken or len(engine._meter)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("name", ["paged_16", "virtual"])
@pytest.mark.parametrize("loop", ["steps", "compiled"])
def test_a_step_beside_a_queue(loop, name, queue, batch, benchmark, monkeypatch):
    monkeypatch.setattr(compiled, "BLOCK_STEPS", STEPS)
    pool = Geometry(batch * 512, batch, 512, layers=2, kv_heads=8, head_dim=512)
    # Those that end before and while it is measured, those that run, those that still wait then.
    n = 4 * batch + batch + queue
    outputs = np.random.default_rng(0).integers(*OUTPUTS, n)
    requests = table(np.full(n, PROMPT), outputs)
    spec = EngineSpec(
        policy="chunked", max_num_seqs=batch, max_num_batched_tokens=batch * PROMPT,
        skip_ahead=False,
    )  # fmt: skip
    allocator = allocators(pool)[name]()
    setup = Setup(allocator, requests, MODES["greedy"], spec, roofline(allocator), 0)
    engine = Engine(setup) if loop == "steps" else over_arrays(setup, interpreted=False)
    advance(engine, 2 * batch)
    taken = benchmark.pedantic(advance, args=(engine, 2 * batch), rounds=1)
    benchmark.extra_info["us_a_step"] = round(benchmark.stats.stats.mean / taken * 1e6, 1)
