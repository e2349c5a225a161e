"""The serving loop: one allocator serves one table of requests on one clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from allocators.base import Grant, IntArray, Usage
from harness.engine.answers import check_answer
from harness.engine.arrivals import NO_MORE, Arrivals
from harness.engine.beams import open_lineage
from harness.engine.executor import Explains, Samples
from harness.engine.group import NO_ROWS, Group
from harness.engine.host_time import HostTime
from harness.engine.meter import Meter, RequestMeter, TokenGapMeter, category_bytes
from harness.engine.observer import StepView
from harness.engine.plan import Plan
from harness.engine.schedulers import make_scheduler
from harness.engine.setup import Setup
from harness.engine.totals import Totals
from harness.results.runlog import PART_SECONDS, RunLog
from harness.results.stream import Sink, kept_log

#: the longest stretch run in one go; bounds the memory of its columns
MOST_STEPS = 4096
#: the seconds of a step's parts where nobody can tell them
UNKNOWN = (float("nan"),) * len(PART_SECONDS)


class Engine:
    """Runs every request to its end.

    Deterministic: the same requests, allocator and seed give the same steps, to the bit, but for
    the host time measured in the allocator.
    """

    loop = "steps"

    def __init__(self, setup: Setup) -> None:
        """Raises `Unsupported` for what the policy can never serve."""
        self._host_time = HostTime()
        allocator, executor, sampling = setup.allocator, setup.executor, setup.sampling
        self._allocator, self._timed = allocator, self._host_time.watch(allocator)
        self._scheduler = make_scheduler(replace(setup, allocator=self._timed))
        self._requests, self._sampling = setup.requests, sampling
        self._executor, self._observers = executor, setup.observers
        self._lineage = setup.drawn_lineage
        if isinstance(executor, Samples):
            executor.begin(self._scheduler.running)
            self._lineage = lambda request, steps: open_lineage(steps, sampling.width)
        self._explains = isinstance(executor, Explains)
        self._skips = setup.options.skip_ahead and executor.skips
        self._front_end = setup.front_end
        self._arrivals = Arrivals(setup.requests, self._front_end.request_s)
        self._totals = Totals(allocator, executor)
        self._now_s = 0.0
        self._planned_s = 0.0  # what has reached the scheduler by then can be in the next step

    def run(self, name: str, progress: Callable[[int], None] = lambda ended: None) -> RunLog:
        """Serve all requests, and keep the log of all steps; see `serve`."""
        capacity_bytes = self._allocator.geometry.capacity_bytes
        serve = partial(self.serve, progress=progress)
        return kept_log(serve, name, capacity_bytes, self._requests.name)

    def serve(
        self, sink: Sink, progress: Callable[[int], None] = lambda ended: None
    ) -> dict[str, float]:
        """Serve all requests, and return the totals of the run (see `RunLog`).

        Steps and ended requests go to `sink` in blocks, and nothing is kept of them here;
        `progress` is told how many requests have ended so far.  Raises `Unservable` for a request
        that can never fit.
        """
        self._meter, self._ended = Meter(sink), RequestMeter(sink)
        self._token_gaps = TokenGapMeter(sink, self._sampling.sequences)
        ended, total = 0, len(self._requests)
        while ended < total:
            self._arrive()
            plan = self._scheduler.plan(self._horizon)
            if plan is None:
                self._wait()
                continue
            plan.before, plan.beside = self._timed.begin_step()
            done = self._step(plan)
            if done:
                ended += len(done)
                self._arrivals.ended(self._seen_s, [group.index for group in done])
                progress(ended)
        self._meter.finish()
        self._ended.finish()
        self._token_gaps.finish()
        hit_tokens = self._meter.hit_tokens
        return self._totals.of_run(self._scheduler, self._host_time.spent_s, hit_tokens)

    @property
    def _seen_s(self) -> float:
        """When clients see what is sampled now."""
        return self._now_s + self._front_end.response_s

    # -- between steps -----------------------------------------------------------------------
    def _arrive(self) -> None:
        """Let those whose time has come join the tail of the queue."""
        for index, arrival_s in self._arrivals.due(self._planned_s):
            group = Group(
                index=index,
                prompt_tokens=int(self._requests.prompt_tokens[index]),
                output_tokens=int(self._requests.output_tokens[index]),
                sequences=self._sampling.sequences,
                arrival_s=arrival_s,
                draw=self._lineage if self._sampling.mode == "beam" else None,
            )
            self._scheduler.waiting.append(group)

    def _wait(self) -> None:
        """Let the clock run to the next arrival; memory is idle but for what is cached."""
        until_s = max(self._now_s, self._arrivals.next_s())  # it may have come while a step ran
        assert until_s < NO_MORE, "requests wait, nothing runs and none will arrive"
        cached_bytes = int(self._usage(NO_ROWS, NO_ROWS).cached[0])
        self._totals.wait(until_s - self._now_s, cached_bytes)
        self._now_s = self._planned_s = until_s

    # -- a step, or several at once ----------------------------------------------------------
    def _horizon(self, rows: IntArray, at_most: int, grants: list[Grant], granted: int) -> int:
        """Return how many steps of pure growth may be run in one go (see `Horizon`).

        It ends before a sequence ends, before memory needs an operation, and where an arrival
        could be admitted.
        """
        if not self._skips or at_most == 1:
            return 1
        # Whoever looks on sees each page as it is given back.
        alone = not (self._scheduler.waits_for_memory or self._observers)
        ask = self._timed.lone_steps if alone else self._timed.quiet_steps
        steps = granted + ask(rows, min(at_most, MOST_STEPS) - granted)
        if steps <= 1:
            return 1
        if not self._scheduler.waiting and self._arrivals.next_s() < NO_MORE:
            lengths = self._scheduler.grown_lengths()
            ends_s = self._ends_s(self._executor.window(grants, lengths, steps))
            steps = min(steps, int(np.searchsorted(ends_s, self._arrivals.next_s())) + 1)
        return steps

    def _step(self, plan: Plan) -> list[Group]:
        """Execute a plan and account for it; return the groups that have ended with it."""
        scheduler, start_s = self._scheduler, self._now_s
        for group in plan.computed_groups:
            if np.isnan(group.first_scheduled_s):
                group.first_scheduled_s = start_s
        ends_s = self._execute(plan)
        parts = self._executor.parts if self._explains else UNKNOWN
        self._now_s = float(ends_s[-1])
        last_starts_s = float(ends_s[-2]) if len(ends_s) > 1 else start_s
        self._planned_s = last_starts_s if self._front_end.plans_ahead else self._now_s
        running = scheduler.running
        usage = self._usage(running.rows, running.finals, plan.steps)
        if self._observers:
            self._show(plan, start_s, ends_s, usage)
        for group in plan.started:
            group.first_token_s = self._seen_s
        batch, saturated, limit = len(running), scheduler.saturated, scheduler.limit
        done = scheduler.sampled(plan, ends_s)
        self._token_gaps.record(running.gaps_s, ends_s)
        for group in done:
            group.finish_s = self._seen_s
        self._ended.record(done)
        self._meter.record(
            start_s,
            ends_s,
            usage,
            saturated,
            waiting=len(scheduler.waiting) + self._arrivals.unseen_by(ends_s),
            first={
                "preemptions": plan.preemptions,
                "copied_bytes": self._totals.execute(plan.all_grants),
            },
            every={
                "running": batch,
                "batch": batch,
                "batched_tokens": plan.batched_tokens,
                "hit_tokens": plan.hit_tokens,
                f"limited_by_{limit}": True,
            },
            last={"running": batch - len(done)},
            parts=parts,
        )
        return done

    def _execute(self, plan: Plan) -> np.ndarray:
        """Run the plan's steps and return the time at which each ends, [steps]."""
        lengths = self._scheduler.decoding_lengths(plan)
        if plan.steps == 1:
            return self._ends_s(np.array([self._executor.step(plan, lengths)]))
        quiet = plan.before.is_empty and plan.beside.is_empty
        assert quiet, "a quiet step needed an operation on memory"
        return self._ends_s(self._executor.window(plan.grants, lengths, plan.steps))

    def _ends_s(self, seconds: np.ndarray) -> np.ndarray:
        """End of each step; summed one by one, so that many steps at once end at the same bits."""
        return np.cumsum(np.concatenate([[self._now_s], seconds]))[1:]

    def _usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        usage = self._allocator.usage(rows, finals, steps)
        check_answer("usage", usage)
        return usage

    def _show(self, plan: Plan, start_s: float, ends_s: np.ndarray, usage: Usage) -> None:
        view = StepView(
            len(self._meter),
            start_s,
            ends_s,
            plan,
            self._scheduler.running,
            self._allocator,
            category_bytes(usage, self._scheduler.saturated),
        )
        for observer in self._observers:
            observer.on_step(view)
