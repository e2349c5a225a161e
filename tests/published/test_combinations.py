"""Every combination of options either runs or is a row `unsupported` that says why."""

import pytest

from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant

ENGINES = ("continuous", "static", "orca", "chunked")
MODES = ("greedy", "parallel", "beam", "speculative")
VARIANTS = {
    "contiguous_max": "allocators.contiguous.Contiguous, reservation: max",
    "contiguous_grow": "allocators.contiguous.Contiguous, reservation: grow",
    "oracle_hash": "allocators.contiguous.Contiguous, reservation: oracle, prefix_index: hash",
    "paged": "allocators.paged.Paged",
    "paged_hash": "allocators.paged.Paged, prefix_index: hash, eviction: s3fifo",
    "paged_radix": "allocators.paged.Paged, prefix_index: radix",
    "virtual": "allocators.virtual.Virtual, page_size: 64KiB",
    "virtual_hash": "allocators.virtual.Virtual, page_size: 64KiB, prefix_index: hash",
    "virtual_copy": (
        "allocators.virtual.Virtual, page_size: 64KiB, prefix_index: hash, sharing: copy"
    ),
}
ALLOCATORS = [f"+allocators.{name}={{_target_: {text}}}" for name, text in VARIANTS.items()]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", MODES)
def test_each_combination_runs_or_says_why_not(engine, mode):
    ran = 0
    for preemption in ("recompute",) if engine == "chunked" else ("recompute", "swap"):
        overrides = [
            "+workload=shared_prefix", "workload.num_requests=25", "workload.prefix_tokens=40",
            f"engine={engine}", f"sampling.mode={mode}", "sampling.n=2", "sampling.width=2",
            f"engine.preemption={preemption}", "kv_tokens=2600", "engine.max_len=512",
            "allocator=[]", *ALLOCATORS,
        ]  # fmt: skip
        prepared = prepare(compose(*overrides))
        assert list(prepared.config.allocators) == list(VARIANTS)
        for name in prepared.config.allocators:
            row, log = run_variant(prepared, name)
            assert row.status in ("ok", "unsupported"), f"{name}, {overrides}: {row.reason}"
            if row.ok:
                ran += 1
                assert row.metrics["finished_requests"] == len(prepared.requests)
                assert log is not None
            else:
                assert row.reason
    possible = engine == "continuous" or mode in (
        ("greedy", "parallel", "beam") if engine in ("static", "orca") else ("greedy", "parallel")
    )
    assert bool(ran) == possible
