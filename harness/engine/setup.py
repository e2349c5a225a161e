"""What a run is made from: one value for either loop, for the choice between them, for a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from allocators.base import Allocator, IntArray
from harness.engine.arrivals import FrontEnd
from harness.engine.beams import drawn_lineage
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.executor import Executor
from harness.engine.observer import Observer
from workloads.requests import RequestTable


@dataclass(frozen=True, slots=True)
class Setup:
    """The inputs of a run.

    `lineage` (request, beam steps) replaces the drawn beams of a simulated run.  `front_end` lies
    between clients and the scheduler.
    """

    allocator: Allocator
    requests: RequestTable
    sampling: SamplingSpec
    options: EngineSpec
    executor: Executor
    seed: int
    observers: Sequence[Observer] = ()
    lineage: Callable[[int, int], IntArray] | None = None
    front_end: FrontEnd = field(default_factory=FrontEnd)

    @property
    def drawn_lineage(self) -> Callable[[int, int], IntArray]:
        """Return the beams of a request of so many beam steps, [steps, width]."""
        if self.lineage is not None:
            return self.lineage
        width, switch = self.sampling.width, self.sampling.beam_switch
        return partial(drawn_lineage, self.seed, width=width, switch=switch)

    @property
    def max_rows(self) -> int:
        """How many sequences may run at once."""
        return min(self.options.max_num_seqs, self.allocator.geometry.max_seqs)
