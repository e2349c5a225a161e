"""Simulated against measured step times, on small serving runs of every kind of step.

The runs are served for real, a few times; plans do not depend on the clock, so a step is the same
step each time, and its measured time is the calibration's statistic of them.  Errors are
|simulated - measured| / measured.  Before each run the calibration's probe is timed again: what
the machine itself has changed by since is no error of the cost model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from allocators.base import AllocatorError
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.command.output import say
from harness.command.tables import markdown_table
from harness.cost.calibrated import Calibrated
from harness.cost.calibration import Calibration
from harness.engine.config import EngineSpec, SamplingSpec
from harness.executors.model.real_run import RealRun
from harness.measure.calibrate.options import STATISTICS
from harness.measure.calibrate.step import probe
from harness.measure.rounds import Rounds
from harness.measure.serving import KINDS, MOVES, SMALLEST_PAGE, ServedStep, ServingRun, serve
from harness.measure.timing import Timer
from kernels.memory import OutOfMemory
from workloads.build import build
from workloads.requests import RequestTable
from workloads.spec import LengthSpec, WorkloadSpec


@dataclass(frozen=True, slots=True)
class StepErrors:
    """How far off one group of steps is; `total_ratio` is simulated over measured time of all."""

    steps: str
    count: int
    median_error: float
    p90_error: float
    total_ratio: float

    @classmethod
    def of(cls, name: str, steps: list[ServedStep]) -> StepErrors:
        measured = np.array([step.measured_s for step in steps])
        simulated = np.array([step.simulated_s for step in steps])
        error = np.abs(simulated - measured) / measured
        middle, p90 = (float(x) for x in np.quantile(error, [0.5, 0.9]))
        return cls(name, len(steps), middle, p90, float(simulated.sum() / measured.sum()))

    def cells(self) -> tuple[str, ...]:
        errors = (f"{self.median_error:.1%}", f"{self.p90_error:.1%}")
        return (self.steps, str(self.count), *errors, f"{self.total_ratio:.2f}")


@dataclass
class Accuracy:
    """Errors by kind of step and by run, and the runs that this device cannot do.

    `machine` are times of the calibration's probe between the runs, over what it took then.
    """

    by_kind: list[StepErrors]
    by_run: list[StepErrors]
    skipped: dict[str, str]
    machine: list[float]

    def text(self) -> str:
        """Return the errors as two tables, and what must be known beside them."""
        head = ("count", "median error", "p90 error", "simulated / measured time")
        parts = [
            markdown_table((title, *head), [error.cells() for error in errors])
            for title, errors in (("steps", self.by_kind), ("run", self.by_run))
        ]
        now = sorted(self.machine)
        if now:
            parts.append(
                f"The machine itself: its probe took {np.median(now):.2f} of the calibrated time "
                f"between these runs ({now[0]:.2f} to {now[-1]:.2f})"
            )
        parts.extend(f"not run: {name}: {reason}" for name, reason in self.skipped.items())
        return "\n\n".join(parts)


def serving_runs(device: str, page_tokens: int, requests: int) -> Iterator[ServingRun]:
    """Yield the runs for a kind of device: each has something that the others have not."""
    paged = partial(Paged, block_size=page_tokens)
    growing = partial(Contiguous, reservation="grow")
    virtual = partial(Virtual, page_size=SMALLEST_PAGE[device])
    chat = _requests(requests, (16, 384), (8, 64))
    roomy, engine = 512 * requests, EngineSpec(max_num_seqs=requests, max_len=512)
    yield ServingRun("paged", paged, chat, roomy, engine)
    yield ServingRun("paged, blocks of 1", partial(Paged, block_size=1), chat, roomy, engine)
    yield ServingRun("contiguous, growing", growing, chat, roomy, engine)
    yield ServingRun("virtual", virtual, chat, 2 * roomy, engine)
    chunked = replace(engine, policy="chunked", max_num_batched_tokens=128)
    yield ServingRun("paged, chunked", paged, chat, roomy, chunked)
    beam = replace(engine, max_num_seqs=4 * requests)
    fewer = _requests(max(1, requests // 3), (16, 128), (8, 48))
    yield ServingRun("paged, beam", paged, fewer, roomy, beam, SamplingSpec("beam", width=4))
    tight = _requests(requests, (16, 128), (32, 96))
    swap = replace(engine, preemption="swap")
    yield ServingRun("paged, swap", paged, tight, max(512, 80 * requests), swap)


def measure_accuracy(real: RealRun, cost: Calibrated, runs: int, requests: int) -> Accuracy:
    """Serve every workload `runs` times and return the errors."""
    calibration = cost.calibration
    served: dict[str, list[list[ServedStep]]] = {}
    skipped: dict[str, str] = {}
    machine = []
    for number in range(runs):  # in rounds, as the measurements
        for run in serving_runs(real.spec.device, calibration.page_tokens, requests):
            machine.append(_machine(real, calibration))
            try:
                served.setdefault(run.name, []).append(serve(run, real, cost))
            except (AllocatorError, OutOfMemory) as error:
                skipped[run.name] = str(error)
        say(f"served {len(served)} runs: round {number + 1} of {runs}")
    pick = STATISTICS[calibration.statistic]
    by_run = {name: _merged(same, pick) for name, same in served.items() if name not in skipped}
    steps = [step for run in by_run.values() for step in run]
    by_kind = {kind: [s for s in steps if s.kind == kind and not s.moves] for kind in KINDS}
    by_kind |= {f"with {name}": [s for s in steps if name in s.moves] for name in MOVES}
    by_kind["all"] = steps
    return Accuracy(_errors(by_kind), _errors(by_run), skipped, machine)


def _errors(groups: dict[str, list[ServedStep]]) -> list[StepErrors]:
    return [StepErrors.of(name, steps) for name, steps in groups.items() if steps]


def _machine(real: RealRun, calibration: Calibration) -> float:
    """Return what the calibration's probe takes now, over what it took then."""
    rounds = Rounds(Timer(real.decoder.device))
    pace = probe(rounds, real.decoder)
    for _ in rounds.run(9):
        pass
    return STATISTICS[calibration.statistic](pace.taken_s) / calibration.probe_s


def _merged(
    runs: list[list[ServedStep]], pick: Callable[[Sequence[float]], float]
) -> list[ServedStep]:
    """Return the steps, each with one time of those it took in runs of the same steps."""
    assert len({tuple((s.kind, s.moves, s.rows) for s in run) for run in runs}) == 1
    return [
        replace(same[0], measured_s=pick([step.measured_s for step in same]))
        for same in zip(*runs, strict=True)
    ]


def _requests(n: int, prompt: tuple[int, int], output: tuple[int, int]) -> RequestTable:
    lengths = [LengthSpec(kind="uniform", low=low, high=high) for low, high in (prompt, output)]
    return build(WorkloadSpec(num_requests=n, prompt=lengths[0], output=lengths[1]), seed=1)
