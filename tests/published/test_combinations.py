"""Every combination of options either runs or is a row `unsupported` that says why."""

import itertools

import pytest

from harness.run import compose, prepare
from harness.run.variant import run_variant

ENGINES = ("continuous", "static", "chunked")
MODES = ("greedy", "parallel", "beam", "speculative")
VARIANTS = (
    ("contiguous_max", ()),
    ("contiguous_grow", ()),
    ("contiguous_oracle", ("allocators.contiguous_oracle.prefix_index=hash",)),
    ("paged", ()),
    ("paged", ("allocators.paged.prefix_index=hash", "allocators.paged.eviction=s3fifo")),
    ("paged", ("allocators.paged.prefix_index=radix",)),
    ("virtual", ("allocators.virtual.page_size=64KiB",)),
    (
        "virtual",
        ("allocators.virtual.page_size=64KiB", "allocators.virtual.prefix_index=hash"),
    ),
    (
        "virtual",
        (
            "allocators.virtual.page_size=64KiB",
            "allocators.virtual.sharing=copy",
            "allocators.virtual.prefix_index=hash",
        ),
    ),
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", MODES)
def test_each_combination_runs_or_says_why_not(engine, mode):
    ran = 0
    preemptions = ("recompute",) if engine == "chunked" else ("recompute", "swap")
    for preemption, (allocator, knobs) in itertools.product(preemptions, VARIANTS):
        overrides = [
            "+workload=shared_prefix", "workload.num_requests=25", "workload.prefix_tokens=40",
            f"engine={engine}", f"sampling.mode={mode}", "sampling.n=2", "sampling.width=2",
            f"allocator=[{allocator}]", *knobs, "kv_tokens=2600", "engine.max_len=512",
            *([] if engine == "chunked" else [f"engine.preemption={preemption}"]),
        ]  # fmt: skip
        prepared = prepare(compose(*overrides))
        row, log = run_variant(prepared, allocator)
        assert row.status in ("ok", "unsupported"), f"{overrides}: {row.reason}"
        if row.ok:
            ran += 1
            assert row.metrics["finished_requests"] == len(prepared.requests)
            assert log is not None
        else:
            assert row.reason
    possible = engine == "continuous" or mode in (
        ("greedy", "parallel", "beam") if engine == "static" else ("greedy", "parallel")
    )
    assert bool(ran) == possible
