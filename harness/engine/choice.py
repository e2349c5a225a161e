"""Which loop serves a run: the engine step by step, or a compiled loop over arrays.

Both take the same steps.  Step by step everything runs: any allocator, sampling, executor, and
whoever looks on.  The compiled loop serves our own allocators on a simulated clock, some thirty
times as fast (docs/performance.md).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from allocators.base import Unsupported
from allocators.rules import families
from allocators.rules.families import FAMILIES
from harness.engine.compiled.build import is_kept
from harness.engine.compiled.clock import CLOCKS, clock_of
from harness.engine.compiled.engine import CompiledEngine
from harness.engine.engine import Engine
from harness.engine.setup import Setup

#: step by step a request takes so long, whose quiet steps are run in one go, and a step of beams,
#: which has none, and a block of it that is looked up and keyed (one core of a server,
#: docs/performance.md)
REQUEST_S, BEAM_STEP_S, BLOCK_S = 0.6e-3, 160e-6, 2e-6
#: before its first step a compiled loop takes so long to be loaded, in a process that has used none
#: and in another, and to be compiled where it is not on disk
LOAD_S, LOAD_NEXT_S, COMPILE_S = 1.2, 0.1, 30.0


def choose_engine(setup: Setup) -> Engine | CompiledEngine:
    """Return the engine of a run, by `engine.compiled`.

    `on`: compiled.  `auto`: compiled where that is possible and saves more time than it costs.
    Raises `Unsupported` for what the policy can never serve, and with `on` for what no compiled
    loop serves.
    """
    wanted = setup.options.compiled
    if wanted != "off":
        refusal = why_not(setup)
        if refusal is not None and wanted == "on":
            raise Unsupported(f"engine.compiled=on: {refusal}; engine.compiled=auto runs it")
        if refusal is None and (wanted == "on" or _pays(setup)):
            return CompiledEngine(setup)
    return Engine(setup)


def why_not(setup: Setup) -> str | None:
    """Return why no compiled loop can serve this run; None if one can."""
    allocator, requests, engine = setup.allocator, setup.requests, setup.options
    if clock_of(setup.executor) is None:
        return "only executor=simulated with cost_model=roofline has a compiled clock"
    if setup.sampling.mode == "speculative":
        return "sampling.mode=speculative runs step by step"
    if engine.preemption != "recompute":
        return f"engine.preemption={engine.preemption} runs step by step"
    if requests.after is not None or requests.concurrency is not None:
        return "requests that wait for the end of others run step by step"
    if setup.observers:
        return "what is recorded of each step (harness.memory_map, trace, export) needs Python"
    if allocator.arrays() is None:
        return "this allocator, or its prefix index, decides in Python"
    if allocator.has_prefix_index and setup.sampling.sequences > 1:
        return "a prefix index is compiled with one sequence a request"
    if allocator.has_prefix_index and engine.policy == "static":
        return "a static batch with a prefix index runs step by step"
    if find_spec("numba") is None:
        return "numba is not installed"
    return None


def _pays(setup: Setup) -> bool:
    """Say whether a compiled loop ends sooner, though it is loaded or compiled first."""
    saved_s, load_s = _steps_s(setup), _load_s()
    if saved_s <= load_s or saved_s > COMPILE_S:
        return saved_s > load_s
    family = FAMILIES[type(setup.allocator.arrays())]
    return is_kept(setup.options.policy, family, CLOCKS[type(clock_of(setup.executor))])


def _load_s() -> float:
    """Return how long a loop that is on disk takes before its first step."""
    return LOAD_NEXT_S if "numba" in sys.modules else LOAD_S


def _steps_s(setup: Setup) -> float:
    """Return about how long a run takes step by step; less than that where beams come slowly."""
    allocator, requests, sampling = setup.allocator, setup.requests, setup.sampling
    tokens = int(requests.prompt_tokens.sum() + requests.output_tokens.sum())
    keyed_s = tokens / allocator.geometry.page_tokens * BLOCK_S * allocator.has_prefix_index
    if sampling.mode != "beam" or not len(requests):
        return len(requests) * REQUEST_S + keyed_s
    prompt, output = int(requests.prompt_tokens.mean()), int(requests.output_tokens.mean())
    pool_holds = families.sequences_held(allocator.arrays(), prompt, output)
    at_once = max(1, min(pool_holds, setup.max_rows) // sampling.width)
    return int(requests.output_tokens.sum()) / at_once * BEAM_STEP_S
