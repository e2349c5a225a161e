"""Which loop serves a run: the engine step by step, or a compiled loop over arrays.

Both take the same steps.  Step by step everything runs: any allocator, sampling, executor, and
whoever looks on.  The compiled loop serves single sequences from our own allocators on a simulated
clock, some forty times as fast (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from allocators.base import Allocator, Unsupported
from allocators.rules.families import FAMILIES
from harness.engine.arrivals import FrontEnd
from harness.engine.compiled.build import LOOPS, is_kept
from harness.engine.compiled.clock import CLOCKS
from harness.engine.compiled.engine import CompiledEngine
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.executor import Executor
from harness.engine.observer import Observer
from workloads.requests import RequestTable

#: what step by step a request takes, and a compiled loop before its first step: where it is on
#: disk, and where it has to be compiled (one core of a server, docs/performance.md)
REQUEST_S, LOAD_S, COMPILE_S = 0.6e-3, 1.2, 20.0


def choose_engine(
    allocator: Allocator,
    requests: RequestTable,
    sampling: SamplingSpec,
    engine: EngineSpec,
    executor: Executor,
    seed: int,
    observers: Sequence[Observer] = (),
    front_end: FrontEnd | None = None,
) -> Engine | CompiledEngine:
    """Return the engine of a run, by `engine.compiled`; see `Engine` for the arguments.

    `on`: compiled.  `auto`: compiled where that is possible and saves more time than it costs.
    Raises `Unsupported` for what the policy can never serve, and with `on` for what no compiled
    loop serves.
    """
    prices = getattr(executor, "prices", lambda: None)()
    if engine.compiled != "off":
        refusal = why_not(allocator, requests, sampling, engine, prices, observers)
        if refusal is not None and engine.compiled == "on":
            raise Unsupported(f"engine.compiled=on: {refusal}; engine.compiled=auto runs it")
        wanted = engine.compiled == "on"
        if refusal is None and (wanted or _pays(allocator, requests, engine, prices)):
            return CompiledEngine(allocator, requests, sampling, engine, prices, seed, front_end)
    return Engine(
        allocator, requests, sampling, engine, executor, seed, observers, front_end=front_end
    )


def why_not(
    allocator: Allocator,
    requests: RequestTable,
    sampling: SamplingSpec,
    engine: EngineSpec,
    prices: Any,
    observers: Sequence[Observer],
) -> str | None:
    """Return why no compiled loop can serve this run; None if one can."""
    if prices is None:
        return "only executor=simulated with cost_model=roofline has a compiled clock"
    if engine.policy not in LOOPS:
        return f"engine={engine.policy} has no compiled loop, {', '.join(LOOPS)} have"
    if sampling.mode != "greedy":
        return f"sampling.mode={sampling.mode} runs step by step, greedy alone is compiled"
    if engine.preemption != "recompute":
        return f"engine.preemption={engine.preemption} runs step by step"
    if requests.after is not None or requests.concurrency is not None:
        return "requests that wait for the end of others run step by step"
    if observers:
        return "what is recorded of each step (harness.memory_map, trace, export) needs Python"
    if allocator.arrays() is None:
        return "this allocator, or its prefix index, decides in Python"
    if find_spec("numba") is None:
        return "numba is not installed"
    return None


def _pays(allocator: Allocator, requests: RequestTable, engine: EngineSpec, prices: Any) -> bool:
    """Say whether a compiled loop ends sooner, though it is loaded or compiled first."""
    saved_s = len(requests) * REQUEST_S
    if saved_s <= LOAD_S or saved_s > COMPILE_S:
        return saved_s > LOAD_S
    return is_kept(engine.policy, FAMILIES[type(allocator.arrays())], CLOCKS[type(prices)])
