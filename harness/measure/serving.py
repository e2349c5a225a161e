"""Small real serving runs in which every step is also priced: same plans, two times a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from allocators.base import Allocator, Geometry, Grant, IntArray
from harness.cost.build import CostModel
from harness.cost.curves import FloatArray
from harness.cost.kv import kv_geometry
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.plan import Plan
from harness.engine.running import Running
from harness.engine.setup import Setup
from harness.executors.model.executor import ModelExecutor
from harness.executors.model.real_run import RealRun
from harness.executors.simulated import SimulatedExecutor
from workloads.requests import RequestTable

#: the smallest page-group that a virtual backing maps on each kind of device
SMALLEST_PAGE = {"cuda": "2MiB", "cpu": "64KiB"}

KINDS = ("prefill", "decode", "mixed")
#: what a step may do besides computing, and the parts of a grant that ask for it
MOVES = {
    "copies": ("copies",),
    "maps": ("maps", "unmaps"),
    "swaps": ("swaps_out", "swaps_in"),
}


@dataclass(frozen=True, slots=True)
class ServedStep:
    """One step: what kind it is, how many rows it has, and how long it took and should take.

    `kind` is one of `KINDS`; `moves` are those of `MOVES` that it did.
    """

    kind: str
    moves: tuple[str, ...]
    rows: int
    measured_s: float
    simulated_s: float


@dataclass(frozen=True)
class ServingRun:
    """A small serving run: requests, an allocator, an engine, a way to sample."""

    name: str
    allocator: Callable[[Geometry], Allocator]
    requests: RequestTable
    capacity_tokens: int
    engine: EngineSpec = field(default_factory=EngineSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)


def serve(run: ServingRun, real: RealRun, cost: CostModel | None = None) -> list[ServedStep]:
    """Serve `run` for real and return its steps, whose `simulated_s` are 0 without `cost`.

    Raises `AllocatorError` or `kernels.memory.OutOfMemory` if it cannot run.
    """
    engine, model = run.engine, real.decoder.shape
    geometry = kv_geometry(
        model,
        1,
        capacity_tokens=run.capacity_tokens,
        host_tokens=run.capacity_tokens if engine.preemption == "swap" else 0,
        max_seqs=engine.max_num_seqs,
        max_len=engine.max_len or model.max_context,
    )
    allocator = run.allocator(geometry)
    with real.executor(allocator, run.requests, run.sampling) as executor:
        simulated = None if cost is None else SimulatedExecutor(cost, allocator)
        paired = PairedExecutor(executor, simulated)
        Engine(Setup(allocator, run.requests, run.sampling, engine, paired, real.seed)).run("")
    return paired.steps


class PairedExecutor:
    """Runs each plan for real, and asks a simulated executor about the same plan."""

    skips = False

    def __init__(self, real: ModelExecutor, simulated: SimulatedExecutor | None) -> None:
        self._real, self._simulated = real, simulated
        self.steps: list[ServedStep] = []

    def begin(self, running: Running) -> None:
        self._real.begin(running)

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Return the measured seconds, which are what the engine's clock goes by."""
        # First, because a real step samples, and sampling moves the groups of the plan on.
        simulated_s = self._simulated.step(plan, lengths) if self._simulated else 0.0
        measured_s = self._real.step(plan, lengths)
        pieces = len(plan.chunks) + sum(p.group.sequences for p in plan.prefills)
        kind = "decode" if not pieces else "mixed" if len(lengths) else "prefill"
        rows, moves = len(lengths) + pieces, moves_of(plan.all_grants)
        self.steps.append(ServedStep(kind, moves, rows, measured_s, simulated_s))
        return measured_s

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> FloatArray:
        raise AssertionError("real steps are run one by one")

    def map_s(self, grant: Grant) -> float:
        return self._real.map_s(grant)

    def finish(self) -> float:
        return self._real.finish()


def moves_of(grants: list[Grant]) -> tuple[str, ...]:
    """Return which of copies, maps and swaps these grants ask for."""
    return tuple(
        move
        for move, parts in MOVES.items()
        if any(len(getattr(grant, part)) for grant in grants for part in parts)
    )
