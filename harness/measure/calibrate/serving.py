"""Real serving runs in which every step is also priced: same plans, so same steps, two times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

import numpy as np

from allocators.base import Allocator, Geometry, Grant, IntArray
from allocators.paged import Paged
from harness.cost.build import CostModel
from harness.cost.calibrated import Calibrated
from harness.cost.calibration import Calibration
from harness.cost.roofline import FloatArray, Work
from harness.cost.shapes import ModelShape
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.plan import Plan
from harness.engine.running import Running
from harness.executors.model.executor import ModelExecutor
from harness.executors.model.real_run import RealRun
from harness.executors.simulated import SimulatedExecutor
from harness.measure.calibrate.statistics import STATISTICS
from workloads.requests import RequestTable


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what kind it is, how many rows it has, and how long it took and should take.

    `kind` is prefill, decode or mixed; `moves` are those of copies, maps and swaps that it did.
    """

    kind: str
    moves: tuple[str, ...]
    rows: int
    measured_s: float
    simulated_s: float


@dataclass(frozen=True)
class Case:
    """A small serving run: requests, an allocator, an engine, a way to sample."""

    name: str
    allocator: Callable[[Geometry], Allocator]
    requests: RequestTable
    capacity_tokens: int
    engine: EngineSpec = field(default_factory=EngineSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)


class Paired:
    """An executor that runs each plan for real, and asks a simulated one about the same plan."""

    skips = False

    def __init__(self, real: ModelExecutor, simulated: SimulatedExecutor) -> None:
        self._real, self._simulated = real, simulated
        self.steps: list[Step] = []

    def begin(self, running: Running) -> None:
        self._real.begin(running)

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Return the measured seconds, which are what the engine's clock goes by."""
        # First, because a real step samples, and sampling moves the groups of the plan on.
        simulated_s = self._simulated.step(plan, lengths)
        measured_s = self._real.step(plan, lengths)
        pieces = len(plan.chunks) + sum(p.group.sequences for p in plan.prefills)
        kind = "decode" if not pieces else "mixed" if len(lengths) else "prefill"
        rows = len(lengths) + pieces
        self.steps.append(Step(kind, moves(plan.all_grants), rows, measured_s, simulated_s))
        return measured_s

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> FloatArray:
        raise AssertionError("real steps are run one by one")

    def map_s(self, grant: Grant) -> float:
        return self._real.map_s(grant)

    def finish(self) -> float:
        return self._real.finish()


def moves(grants: list[Grant]) -> tuple[str, ...]:
    """Return which of copies, maps and swaps these grants ask for."""
    found = {
        "copies": any(len(g.copies) for g in grants),
        "maps": any(len(g.maps) + len(g.unmaps) + len(g.ahead_maps) for g in grants),
        "swaps": any(len(g.swaps_out) + len(g.swaps_in) for g in grants),
    }
    return tuple(name for name, happened in found.items() if happened)


def serve(case: Case, real: RealRun, cost: CostModel) -> list[Step]:
    """Serve a case for real and return its steps.  Raises `AllocatorError` if it cannot run."""
    allocator = case.allocator(geometry_of(case, real.decoder.shape))
    with real.executor(allocator, case.requests, case.sampling) as executor:
        paired = Paired(executor, SimulatedExecutor(cost, allocator))
        Engine(allocator, case.requests, case.sampling, case.engine, paired, real.seed).run("")
    return paired.steps


def geometry_of(case: Case, model: ModelShape) -> Geometry:
    """Return the pool of a case."""
    return Geometry(
        capacity_tokens=case.capacity_tokens,
        host_tokens=case.capacity_tokens if case.engine.preemption == "swap" else 0,
        max_seqs=case.engine.max_num_seqs,
        max_len=case.engine.max_len or model.max_context,
        layers=model.layers,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        dtype_bytes=model.dtype_bytes,
    )


# -- the overhead ------------------------------------------------------------------------------
#: decode steps at each number of rows
STEPS_EACH = 6
PROMPT_TOKENS = 16


def staircase(rows: tuple[int, ...]) -> RequestTable:
    """Return requests that decode `STEPS_EACH` steps together at each number of `rows`."""
    outputs = np.empty(rows[-1], dtype=np.int64)
    ending = [*reversed(rows), 0]
    for stage, (running, left) in enumerate(pairwise(ending)):
        # The first token comes with the prompt, before any decode step.
        outputs[left:running] = 1 + STEPS_EACH * (stage + 1)
    return RequestTable(
        arrival_s=np.zeros(len(outputs)),
        prompt_tokens=np.full(len(outputs), PROMPT_TOKENS),
        output_tokens=outputs,
    )


class Overhead:
    """The overhead of a step by its rows, from serving runs made for it.

    At n rows it is what decode steps of n rows took beyond the parts that were measured: scheduling
    pieces, placing rows, noting tokens, and how kernels that follow one another get in each
    other's way.  `take` is called between the rounds of the other measurements, so that a slow
    second of the machine falls on both.
    """

    def __init__(self, real: RealRun, rows: tuple[int, ...], page_tokens: int) -> None:
        self._real, self._rows = real, rows
        longest = PROMPT_TOKENS + 1 + STEPS_EACH * len(rows) + page_tokens
        self._case = Case(
            "overhead",
            lambda geometry: Paged(geometry, block_size=page_tokens),
            staircase(rows),
            capacity_tokens=rows[-1] * longest,
            engine=EngineSpec(max_num_seqs=rows[-1]),
        )
        self._taken: list[list[Step]] = []

    def take(self) -> None:
        """Serve once and keep what the steps took."""
        self._taken.append(serve(self._case, self._real, Free()))

    def added(self, calibration: Calibration) -> Calibration:
        """Return the calibration with its table of overheads."""
        free = {"rows": [1], "seconds": [0.0]}
        parts = replace(calibration, tables={**calibration.tables, "overhead": free})
        priced = serve(self._case, self._real, Calibrated(self._real.decoder.shape, parts))
        pick = STATISTICS[calibration.statistic]
        beyond: dict[int, list[float]] = {n: [] for n in self._rows}
        for step, *taken in zip(priced, *self._taken, strict=True):
            if step.kind == "decode":
                took_s = pick(one.measured_s for one in taken)
                beyond[step.rows].append(took_s - step.simulated_s)
        seconds = [max(0.0, median(beyond[n])) for n in self._rows]
        overhead = {"rows": list(self._rows), "seconds": seconds}
        return replace(calibration, tables={**calibration.tables, "overhead": overhead})


class Free:
    """A cost model for which nothing takes time."""

    def step_s(self, work: Work) -> float:
        return 0.0

    def decode_window_s(
        self, seqs: int, context_tokens: int, steps: int, table_bytes: IntArray | int, paged: bool
    ) -> FloatArray:
        return np.zeros(steps)

    def grant_s(self, grant: Grant, allocator: Allocator) -> tuple[float, float]:
        return 0.0, 0.0
