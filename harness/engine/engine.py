"""The serving loop: one allocator serves one table of requests on one clock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from allocators.base import Allocator, AllocatorError, Grant, IntArray, NeverFits, Unsupported
from harness.engine.arrivals import NO_MORE, Arrivals
from harness.engine.chunked import ChunkedScheduler
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.group import Group, beam_lineage
from harness.engine.host_time import TimedAllocator
from harness.engine.meter import Meter
from harness.engine.observer import Observer, StepView
from harness.engine.plan import Plan
from harness.engine.running import Running
from harness.engine.scheduler import Scheduler, StaticScheduler
from harness.engine.speculative import SpeculativeScheduler
from harness.engine.streams import Streams
from harness.results.runlog import RunLog
from workloads.requests import RequestTable

#: the longest stretch run in one go; bounds the memory of its columns
MOST_STEPS = 4096
SCHEDULERS = {
    "continuous": Scheduler,
    "static": StaticScheduler,
    "chunked": ChunkedScheduler,
}
#: the token budget of a step where none is given
DEFAULT_BUDGET_TOKENS = 2048


class OutOfMemory(AllocatorError):
    """A request that this allocator can never serve from this pool; the text names both."""


class Executor(Protocol):
    skips: bool

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Run one step and return the seconds it took."""

    def map_s(self, grant: Grant) -> float:
        """Return the seconds that mapping and unmapping took, hidden ones included."""

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> np.ndarray:
        """Return the seconds of `steps` steps of pure growth, without side effects."""


@runtime_checkable
class Samples(Protocol):
    """An executor that really samples, so that it, and not a draw, chooses how beams go on."""

    def begin(self, running: Running) -> None:
        """Be told of the running batch before the first step."""

    def finish(self) -> float:
        """Be told that the last step is over; return the seconds of maps not yet reported."""


class Engine:
    """Runs every request to its end.

    Deterministic: the same requests, allocator and seed give the same steps, to the bit, but for
    the host time measured in the allocator.
    """

    def __init__(
        self,
        allocator: Allocator,
        requests: RequestTable,
        sampling: SamplingSpec,
        engine: EngineSpec,
        executor: Executor,
        seed: int,
        observers: Sequence[Observer] = (),
        lineage: Callable[[int, int], IntArray] | None = None,
    ) -> None:
        """`lineage` (request, beam steps) replaces the drawn beams of a simulated run."""
        max_len = allocator.geometry.max_len
        chunked = engine.policy == "chunked"
        if chunked and sampling.mode == "beam":
            raise Unsupported(
                "engine=chunked schedules sequences that only append, sampling.mode=beam replaces "
                "some at every step: use engine=continuous"
            )
        swaps = engine.preemption == "swap"
        if chunked and swaps:
            raise Unsupported("engine=chunked preempts by recompute only, as vLLM's V1 scheduler")
        if chunked and engine.expected_output_tokens:
            raise Unsupported("engine=chunked does not admit by expected length, see continuous")
        rows = min(engine.max_num_seqs, allocator.geometry.max_seqs)
        if sampling.sequences > rows:
            raise Unsupported(
                f"a request of {sampling.sequences} sequences never fits in max_num_seqs={rows}"
            )
        speculative = sampling.mode == "speculative"
        if speculative and engine.policy != "continuous":
            raise Unsupported(
                f"sampling.mode=speculative runs with engine=continuous, not {engine.policy}"
            )
        default = DEFAULT_BUDGET_TOKENS if chunked else max(max_len, DEFAULT_BUDGET_TOKENS)
        if engine.policy == "static":
            default = sys.maxsize  # a batch is computed whole: memory alone bounds it
        budget = engine.max_num_batched_tokens or default
        if chunked and budget < sampling.sequences:
            raise Unsupported(
                f"a request of {sampling.sequences} sequences decodes as many tokens a step, more "
                f"than max_num_batched_tokens={budget}"
            )
        self._allocator = TimedAllocator(allocator)
        policy = SpeculativeScheduler if speculative else SCHEDULERS[engine.policy]
        self._scheduler = policy(
            self._allocator,
            rows,
            budget,
            max_len,
            sampling.mode == "beam",
            Streams(requests, allocator.has_prefix_index),
            swaps,
            engine.expected_output_tokens,
        )
        if isinstance(self._scheduler, SpeculativeScheduler):
            self._scheduler.draft_tokens = sampling.draft_tokens
            self._scheduler.acceptance_rate = sampling.acceptance_rate
            self._scheduler.seed = seed
        self._requests, self._sampling, self._seed = requests, sampling, seed
        self._executor = executor
        self._lineage = self._drawn if lineage is None else lineage
        if isinstance(executor, Samples):
            executor.begin(self._scheduler.running)
            self._lineage = self._unchosen
        self._observers = observers
        self._skip = engine.skip_ahead and executor.skips
        self._arrivals = Arrivals(requests)
        self._groups: list[Group] = []
        self._meter = Meter()
        self._now_s = 0.0
        self._totals = dict.fromkeys(
            ("gap_s", "gap_cached_byte_s", "maps", "unmaps", "map_s", "swapped_bytes"), 0.0
        )

    def run(self, name: str, progress: Callable[[int], None] = lambda ended: None) -> RunLog:
        """Serve all requests; `progress` is told how many have ended so far.

        Raises `OutOfMemory` for a request that can never fit.
        """
        ended, total = 0, len(self._requests)
        while ended < total:
            self._arrive()
            plan = self._plan()
            if plan is None:
                self._wait()
                continue
            done = self._step(plan)
            if done:
                ended += len(done)
                self._arrivals.ended(self._now_s, [group.index for group in done])
                progress(ended)
        self._totals["allocator_host_s"] = self._allocator.host_s
        self._totals["looked_up_tokens"] = float(self._scheduler.looked_up_tokens)
        self._totals["wasted_tokens"] = float(self._scheduler.wasted_tokens)
        if self._allocator.inner.has_prefix_index:
            self._totals["evictions"] = float(self._allocator.inner.evictions)
        if isinstance(self._executor, Samples):
            self._totals["map_s"] += self._executor.finish()
        if not self._allocator.inner.pages_per_group:
            for total in ("maps", "unmaps", "map_s"):
                del self._totals[total]
        geometry, timeline = self._allocator.inner.geometry, self._meter.columns()
        hits = int(timeline["hit_tokens"].sum())
        self._totals["hit_bytes"] = float(hits * geometry.bytes_per_token)
        capacity = geometry.capacity_bytes
        return RunLog(name, capacity, timeline, self._request_columns(), self._totals)

    # -- one step ----------------------------------------------------------------------------
    def _arrive(self) -> None:
        for index, arrival_s in self._arrivals.due(self._now_s):
            output = int(self._requests.output_tokens[index])
            lineage = None
            if self._sampling.mode == "beam":
                lineage = self._lineage(index, output - 1)
            group = Group(
                index=index,
                prompt_tokens=int(self._requests.prompt_tokens[index]),
                output_tokens=output,
                sequences=self._sampling.sequences,
                arrival_s=arrival_s,
                lineage=lineage,
            )
            self._groups.append(group)
            self._scheduler.waiting.append(group)

    def _drawn(self, index: int, steps: int) -> IntArray:
        sampling = self._sampling
        return beam_lineage(self._seed, index, steps, sampling.width, sampling.beam_switch)

    def _unchosen(self, index: int, steps: int) -> IntArray:
        """All stay, until the executor writes what it chose."""
        return np.tile(np.arange(self._sampling.width), (steps, 1))

    def _plan(self) -> Plan | None:
        try:
            return self._scheduler.plan(self._horizon)
        except NeverFits as error:
            index = error.args[1]
            raise OutOfMemory(
                f"request {self._requests.name(index)!r} (prompt "
                f"{self._requests.prompt_tokens[index]}, output "
                f"{self._requests.output_tokens[index]}, {self._sampling.sequences} sequences) "
                f"can never fit: {error.args[0]}"
            ) from error

    def _wait(self) -> None:
        """Let the clock run to the next arrival; memory is idle but for what is cached."""
        until = self._arrivals.next_s()
        assert until < NO_MORE, "requests wait, nothing runs and none will arrive"
        allocator = self._allocator.inner
        none = np.empty(0, dtype=np.int64)
        cached = int(allocator.usage(none, none).cached[0])
        self._totals["gap_s"] += until - self._now_s
        self._totals["gap_cached_byte_s"] += cached * (until - self._now_s)
        self._now_s = until

    def _horizon(self, rows: IntArray, at_most: int, grants: list[Grant], granted: int) -> int:
        """Return how many steps of pure growth may be run in one go.

        It ends before a sequence ends, before memory needs an operation, and where an arrival
        could be admitted.  The slots of the first `granted` steps are taken already.
        """
        if not self._skip or at_most == 1:
            return 1
        steps = granted + self._allocator.quiet_steps(rows, min(at_most, MOST_STEPS) - granted)
        if steps <= 1:
            return 1
        if not self._scheduler.waiting and self._arrivals.next_s() < NO_MORE:
            lengths = self._scheduler.decoding_lengths()
            ends = self._ends(self._executor.window(grants, lengths, steps))
            steps = min(steps, int(np.searchsorted(ends, self._arrivals.next_s())) + 1)
        return steps

    def _step(self, plan: Plan) -> list[Group]:
        running = self._scheduler.running
        start_s = self._now_s
        for group in plan.computed_groups:
            if np.isnan(group.first_scheduled_s):
                group.first_scheduled_s = start_s
        lengths = self._scheduler.decoding_lengths(plan)
        if plan.steps == 1:
            seconds = np.array([self._executor.step(plan, lengths)])
        else:
            seconds = self._executor.window(plan.grants, lengths, plan.steps)
        ends = self._ends(seconds)
        self._now_s = float(ends[-1])
        usage = self._allocator.inner.usage(running.rows, running.finals, plan.steps)
        if self._observers:
            view = StepView(len(self._meter), start_s, ends, plan, running, self._allocator.inner)
            for observer in self._observers:
                observer.on_step(view)
        for group in plan.started:
            group.first_token_s = self._now_s
        batch, starved = len(running), self._scheduler.starved
        done = self._scheduler.sampled(plan)
        for group in done:
            group.finish_s = self._now_s
        self._meter.record(
            start_s,
            ends,
            usage,
            starved,
            waiting=len(self._scheduler.waiting) + self._arrivals.unseen_by(ends),
            first={"preemptions": plan.preemptions, "copied_bytes": self._count(plan.all_grants)},
            every={
                "running": batch,
                "batch": batch,
                "batched_tokens": plan.batched_tokens,
                "hit_tokens": plan.hit_tokens,
            },
            last={"running": batch - len(done)},
        )
        return done

    def _ends(self, seconds: np.ndarray) -> np.ndarray:
        """End of each step; summed one by one, so that many steps at once end at the same bits."""
        return np.cumsum(np.concatenate([[self._now_s], seconds]))[1:]

    def _count(self, grants: list[Grant]) -> int:
        """Count the page-groups mapped and unmapped; return the bytes copied."""
        slots, per_token = 0, self._allocator.inner.geometry.bytes_per_token
        for grant in grants:
            self._totals["maps"] += len(grant.maps) + len(grant.ahead_maps)
            self._totals["unmaps"] += len(grant.unmaps)
            if len(grant.maps) or len(grant.unmaps) or len(grant.ahead_maps):
                self._totals["map_s"] += self._executor.map_s(grant)
            slots += int(grant.copies[:, 2].sum()) if len(grant.copies) else 0
            swapped = int(grant.swaps_out[:, 2].sum() + grant.swaps_in[:, 2].sum())
            self._totals["swapped_bytes"] += swapped * per_token
        return slots * per_token

    def _request_columns(self) -> dict[str, np.ndarray]:
        groups = sorted(self._groups, key=lambda group: group.index)
        columns = {
            name: np.array([getattr(group, name) for group in groups])
            for name in (
                "arrival_s", "first_scheduled_s", "first_token_s", "finish_s",
                "prompt_tokens", "output_tokens", "sequences", "preemptions",
            )
        }  # fmt: skip
        columns["request"] = np.array([group.index for group in groups], dtype=np.int64)
        names = [self._requests.name(group.index) for group in groups]
        columns["id"] = np.array(names, dtype=object)
        columns["status"] = np.array(["finished"] * len(groups), dtype=object)
        return columns
