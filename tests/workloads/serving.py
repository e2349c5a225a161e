"""A small engine for the workloads whose arrivals depend on it."""

import numpy as np

from allocators.base import Geometry
from allocators.paged import Paged
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from tests.places import shipped
from workloads import RequestTable

POLICIES = ("continuous", "static", "orca", "chunked")


def serve(requests, skip=True, policy="continuous", index="none", pool_tokens=320, block_size=16):
    """Serve `requests` with a paged allocator, every step of another length; return the log."""
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    pool = Geometry(pool_tokens, 32, max(longest, 2), layers=2, kv_heads=8, head_dim=512)
    allocator = Paged(pool, prefix_index=index, block_size=block_size)
    model, gpu = (
        shipped(ModelShape, "model", "llama-tiny"),
        shipped(HardwareSpec, "hardware", "a10g"),
    )
    executor = SimulatedExecutor(Roofline(model, gpu, CostSpec()), allocator)
    engine = EngineSpec(policy=policy, skip_ahead=skip, max_num_seqs=32)
    log = Engine(Setup(allocator, requests, SamplingSpec("greedy"), engine, executor, 0)).run(
        "test"
    )
    log.check()
    return log


def table(prompt, output, after=None, think_s=None, arrival_s=None, **columns):
    n = len(prompt)
    if after is not None:
        columns["after"] = np.array(after, dtype=np.int64)
        columns["think_s"] = np.array(think_s if think_s is not None else [0.0] * n, dtype=float)
    return RequestTable(
        np.zeros(n) if arrival_s is None else np.array(arrival_s, dtype=float),
        np.array(prompt, dtype=np.int64),
        np.array(output, dtype=np.int64),
        **columns,
    )


def same(a, b):
    """Whether two logs hold the same columns, to the bit."""
    return all(
        np.array_equal(x[name], y[name], equal_nan=x[name].dtype.kind == "f")
        for x, y in ((a.timeline, b.timeline), (a.requests, b.requests))
        for name in x
    )
