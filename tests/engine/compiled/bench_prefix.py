"""Speed of the two loops where prompts are looked up: the Mooncake trace, and a shared prefix.

python -m pytest -o addopts= --benchmark-only tests/engine/compiled/bench_prefix.py

A compiled loop is compiled or loaded first, outside what is timed.
"""

import pytest

from harness.comparison import compose, prepare
from tests.engine.compiled.bench_loops import engines

TRACE = "mooncake/conversation_trace.jsonl.gz"
WORKLOADS = {
    "mooncake": ("+workload=trace", "model=llama-3-8b", "hardware=h100-80gb", "hardware.count=2",
                 "engine.max_len=131072", "workload.too_long=skip"),
    "shared prefix": ("+workload=shared_prefix", "workload.num_requests=5000", "model=opt-13b"),
}  # fmt: skip


@pytest.mark.parametrize("compiled", ["off", "on"])
@pytest.mark.parametrize("index", ["hash", "none"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_run_with_prompts_that_begin_alike(workload, index, compiled, shared_file, benchmark):
    options = [*WORKLOADS[workload], "engine=chunked", "allocator=[paged]"]
    if workload == "mooncake":
        options.append(f"workload.path={shared_file(TRACE)}")
    options += [f"allocators.paged.prefix_index={index}", f"engine.compiled={compiled}"]
    engine = engines(prepare(compose(*options)), "paged")
    if compiled == "on":
        engine()[0][0].run("first")
    log = benchmark.pedantic(lambda made: made.run("x"), setup=engine, rounds=1)
    benchmark.extra_info["steps"] = log.steps
