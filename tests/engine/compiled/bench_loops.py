"""Speed of the two loops on requests of the Azure conversation lengths.

python -m pytest -o addopts= --benchmark-only tests/engine/compiled/bench_loops.py

CodeLlama-34b on two A100s of 80 GB, Poisson arrivals at 2 requests/s, `engine=chunked` with 512
tokens a step and 128 sequences, lengths cut to 4,096 tokens.  A compiled loop is compiled or loaded
first, outside what is timed.
"""

import pytest

from harness.comparison import compose, prepare
from harness.cost import make_cost
from harness.engine.choice import choose_engine
from harness.engine.compiled.engine import CompiledEngine
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor

TRACE = "azure/AzureLLMInferenceTrace_conv.csv"
OPTIONS = (
    "+workload=trace", "workload.arrivals=poisson", "workload.rate=2", "workload.too_long=truncate",
    "model=codellama-34b", "hardware=a100-80gb", "hardware.count=2", "engine=chunked",
    "engine.max_len=4096", "engine.max_num_batched_tokens=512", "engine.max_num_seqs=128",
    "allocator=[paged,virtual,contiguous_oracle]",
)  # fmt: skip
RUNS = {
    "steps of 2,000": ("off", 2_000),
    "compiled 2,000": ("on", 2_000),
    "compiled 19,000": ("on", 19_000),
}


DEMO = ("contiguous_max", "contiguous_pow2", "contiguous_oracle", "paged", "virtual")
NAMES = ("paged", "virtual", "contiguous_oracle")


def engines(prepared, name):
    """Return a maker of engines, as `benchmark.pedantic` takes it."""
    config = prepared.config

    def engine():
        allocator = prepared.allocator(name)
        cost = make_cost(config.model, config.hardware, config.cost_model, config.software)
        executor = SimulatedExecutor(cost, allocator)
        made = choose_engine(
            Setup(
                allocator, prepared.requests, config.sampling, config.engine, executor, config.seed
            )
        )
        assert isinstance(made, CompiledEngine) == (config.engine.compiled == "on")
        return (made,), {}

    return engine


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("run", RUNS)
def test_a_run_of_azure_lengths(run, name, shared_file, benchmark):
    compiled, requests = RUNS[run]
    path = f"workload.path={shared_file(TRACE)}"
    count = f"workload.num_requests={requests}"
    engine = engines(prepare(compose(*OPTIONS, path, count, f"engine.compiled={compiled}")), name)
    if compiled == "on":
        engine()[0][0].run("first")
    rounds = 1 if compiled == "off" else 3
    log = benchmark.pedantic(lambda made: made.run("x"), setup=engine, rounds=rounds)
    benchmark.extra_info["steps"] = log.steps


@pytest.mark.parametrize("name", DEMO)
@pytest.mark.parametrize("loop", ["off", "on"])
def test_beams_of_the_demo(loop, name, benchmark):
    """Beam search of width 4, 1,000 requests at once, `engine=continuous`."""
    engine = engines(prepare(compose("+workload=beam", f"engine.compiled={loop}")), name)
    rounds = 1 if loop == "off" else 3
    if loop == "on":
        engine()[0][0].run("first")
    log = benchmark.pedantic(lambda made: made.run("x"), setup=engine, rounds=rounds)
    benchmark.extra_info["steps"] = log.steps


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("requests", [10_000, 100_000, 300_000])
def test_many_requests_of_drawn_azure_lengths(requests, name, shared_file, benchmark):
    """Prompts and outputs drawn apart from each other, since the trace is not that long."""
    drawn = [
        f"workload.{part}.{key}={value}"
        for part, column in (("prompt", "ContextTokens"), ("output", "GeneratedTokens"))
        for key, value in (("kind", "empirical"), ("path", shared_file(TRACE)), ("column", column))
    ]
    count = f"workload.num_requests={requests}"
    options = (*OPTIONS, "workload.kind=generated", *drawn, count, "engine.compiled=on")
    engine = engines(prepare(compose(*options)), name)
    log = benchmark.pedantic(lambda made: made.run("x"), setup=engine, rounds=1, warmup_rounds=1)
    benchmark.extra_info["steps"] = log.steps
