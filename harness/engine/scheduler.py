"""Iteration-level scheduling: who runs the next step, and what memory must do for it.

First come, first served.  `continuous` follows Orca and the first vLLM: as soon as a waiting
request fits, a step computes prompts; otherwise all that run decode.  `static` follows
FasterTransformer: a batch is formed, run until its last sequence ends, and only then released.

Under pressure the latest arrival is preempted whole, as a gang: its memory is released and it goes
back to the head of the queue, to be computed again from its prompt and what it had generated, or
to be fetched from host memory if it was swapped out.  The queue is strict, so nothing new is
admitted while any is preempted (PagedAttention, section 4.5).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from allocators.base import EMPTY_GRANT, Demand, Grant, IntArray, NeverFits, Prompt
from harness.engine.group import Group
from harness.engine.host_time import TimedAllocator
from harness.engine.plan import Plan, Prefill
from harness.engine.running import NO_ROWS, Running
from harness.engine.streams import Streams

#: from the decoding rows, a number of steps, the grants due and the steps whose slots are taken
#: already: how many to run in one go
Horizon = Callable[[IntArray, int, list[Grant], int], int]


class Scheduler:
    """The `continuous` policy, and what every policy shares."""

    def __init__(
        self,
        allocator: TimedAllocator,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_len: int,
        beams: bool,
        streams: Streams,
        swaps: bool,
        expected_output_tokens: int = 0,
    ) -> None:
        self.allocator = allocator
        self._swaps = swaps
        self._expected_tokens = expected_output_tokens
        inner = allocator.inner
        self._pool_tokens = sum(inner.balance()) * inner.geometry.page_tokens
        self.streams = streams
        self.waiting: deque[Group] = deque()
        self.running = Running(max_num_seqs, max_len, beams)
        self.beams = beams
        self.starved = False  # the head of the queue was refused memory when last asked for
        self._budget_tokens = max_num_batched_tokens
        self._free_rows = list(range(max_num_seqs))
        self.pending: list[Grant] = []  # executed with the next step
        self.looked_up_tokens = 0  # of all admissions: what a prefix cache could have given
        self.wasted_tokens = 0  # computed, lost by a preemption and computed again

    # -- the step ----------------------------------------------------------------------------
    def decoding_lengths(self, plan: Plan | None = None) -> IntArray:
        """Return the slots that each row which decodes fills, its new token included.

        Those of `plan`, or of all that run.
        """
        return NO_ROWS if plan is not None and plan.prefills else self.running.lengths + 1

    def plan(self, horizon: Horizon) -> Plan | None:
        """Return what to run next, or None when nothing can run before another request arrives.

        Raises `NeverFits` with the request's index in `args[1]` if it cannot be served at all.
        """
        prefills = self._admit()
        if prefills:
            return self._compute(prefills)
        if len(self.running):
            return self._decode(horizon)
        return None

    def _compute(self, prefills: list[Prefill]) -> Plan:
        started = [p.group for p in prefills if not p.group.generated]
        return Plan(self._take_pending(), prefills, started=started)

    def _admit(self) -> list[Prefill]:
        prefills: list[Prefill] = []
        tokens, self.starved = 0, False
        while self.waiting and len(self._free_rows) >= self.waiting[0].sequences:
            group = self.waiting[0]
            if group.swapped:
                if self._fetch(group):
                    continue
                break
            prompt = self._whole(group)
            private = group.prompt_tokens + group.generated - prompt.tokens
            tokens += prompt.tokens + private * group.sequences
            if prefills and tokens > self._budget_tokens:
                break
            rows = np.array(heapq.nsmallest(group.sequences, self._free_rows), dtype=np.int64)
            grant = self._ask(group, rows, prompt, group.demand(private))
            if grant is None:
                self.starved = True
                break
            for _ in range(group.sequences):
                heapq.heappop(self._free_rows)
            group.rows = rows
            self.waiting.popleft()
            self.running.add(group)
            prefills.append(Prefill(group, grant, prompt.tokens, private))
            self._note_admission(prefills[-1])
        return prefills

    def _whole(self, group: Group) -> Prompt:
        """Return what the group starts from, and how long it must be able to become."""
        prompt = group.prompt(self.streams.of(group))
        if not self._expected_tokens or not len(self.running):
            return prompt
        expected = group.prompt_tokens + max(self._expected_tokens, group.generated)
        return replace(prompt, whole_tokens=min(expected, self._pool_tokens))

    def _fetch(self, group: Group) -> bool:
        """Bring a swapped group back if it fits; it decodes in the next step that does."""
        rows = np.array(heapq.nsmallest(group.sequences, self._free_rows), dtype=np.int64)
        grant = self.allocator.resume(rows, group.index)
        if grant is None:
            if not len(self.running):
                raise NeverFits(f"{self._empty_pool()} refused to take it back", group.index)
            self.starved = True
            return False
        for _ in range(group.sequences):
            heapq.heappop(self._free_rows)
        group.rows, group.swapped = rows, False
        self.waiting.popleft()
        self.running.add(group)
        self.pending.append(grant)
        return True

    def _note_admission(self, prefill: Prefill) -> None:
        self.looked_up_tokens += prefill.prompt_tokens
        if prefill.group.generated:
            # The tokens sampled last had not been fed: computing them is no repetition.
            fresh = prefill.group.sequences if prefill.private_tokens else 1
            self.wasted_tokens += prefill.computed_tokens - fresh

    def _ask(self, group: Group, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        try:
            grant = self.allocator.admit(rows, prompt, demand)
        except NeverFits as error:
            raise NeverFits(str(error), group.index) from error
        if grant is None and not len(self.running):
            raise NeverFits(f"{self._empty_pool()} refused it", group.index)
        return grant

    def _empty_pool(self) -> str:
        return f"the empty pool of {self.allocator.inner.geometry.capacity_tokens} tokens"

    def _decode(self, horizon: Horizon) -> Plan | None:
        plan = Plan(self._take_pending())
        if self.beams:
            self._reassign(plan)
        while len(self.running):
            rows = self.running.rows
            # After a preemption the queue is asked again in the very next step.
            alone = self.beams or plan.preemptions
            steps = 1 if alone else horizon(rows, int(self.running.left.min()), plan.grants, 0)
            grant = self.allocator.grow(rows, steps)
            if grant is not None:
                if grant is not EMPTY_GRANT:
                    plan.grants.append(grant)
                plan.rows, plan.steps = rows, steps
                return plan
            refused = self.running.latest()
            self._preempt(refused, plan)
            refused.reassigned_step = refused.generated - 1
        # The only one that ran was preempted: it is admitted again now, or can never fit.
        self.pending = plan.grants
        again = self.plan(horizon)
        if again is not None:
            again.preemptions += plan.preemptions
        return again

    def _reassign(self, plan: Plan) -> None:
        while len(self.running):
            rows, parents = self.running.rows, self.running.beam_parents()
            if (rows == parents).all():
                return
            grant = self.allocator.reassign(rows, parents)
            if grant is not None:
                plan.grants.append(grant)
                return
            self._preempt(self.running.latest(), plan)

    def _preempt(self, group: Group, plan: Plan) -> None:
        self._leave(group, plan.grants, swap=self._swaps)
        group.preemptions += 1
        plan.preemptions += 1
        self.waiting.appendleft(group)
        self.starved = True

    # -- ends --------------------------------------------------------------------------------
    def sampled(self, plan: Plan) -> list[Group]:
        """Count the tokens that the plan's sequences sampled; return the groups that have ended."""
        computed = [prefill.group.index for prefill in plan.prefills]
        at = np.flatnonzero(np.isin(self.running.owner, computed)) if computed else slice(None)
        done = self.running.sampled(at, plan.steps)
        for group in done:
            self._end(group)
        return done

    def _end(self, group: Group) -> None:
        self.streams.forget(group)
        self._leave(group, self.pending)

    def _leave(self, group: Group, grants: list[Grant], swap: bool = False) -> None:
        """Take a running group's memory; what that takes is executed with `grants`."""
        self.running.remove(group)
        self._release(group, grants, swap)

    def _release(self, group: Group, grants: list[Grant], swap: bool = False) -> None:
        # Who came back to an empty pool and got no further would only come back again.
        swap = swap and (len(self.running) > 0 or group.swapped_at != group.generated)
        grant = self.allocator.suspend(group.rows, group.index) if swap else None
        group.swapped = grant is not None
        if group.swapped:
            group.swapped_at = group.generated
        if grant is None:  # the host is full, or nobody asked it
            grant = self.allocator.release(group.held_rows)
        if grant is not EMPTY_GRANT:
            grants.append(grant)
        for row in group.rows.tolist():
            heapq.heappush(self._free_rows, row)
        group.rows = NO_ROWS

    def _take_pending(self) -> list[Grant]:
        grants, self.pending = self.pending, []
        return grants


class StaticScheduler(Scheduler):
    """The `static` policy: ended sequences stay, padded, until the whole batch has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ended: list[Group] = []
        self._padding = NO_ROWS

    def decoding_lengths(self, plan: Plan | None = None) -> IntArray:
        # Sequences that have ended are still computed; they come last.
        lengths = super().decoding_lengths(plan)
        return np.concatenate([lengths, self._padding]) if len(self._padding) else lengths

    def sampled(self, plan: Plan) -> list[Group]:
        self._padding = self._padding + plan.steps
        return super().sampled(plan)

    def plan(self, horizon: Horizon) -> Plan | None:
        prefills = [] if len(self.running) else self._admit()
        if prefills:
            return self._compute(prefills)
        # Who was swapped out needs no prefill: the new batch may consist of them alone.
        return self._decode(horizon) if len(self.running) else None

    def _end(self, group: Group) -> None:
        self.streams.forget(group)
        self.running.remove(group)
        self._ended.append(group)
        ended = np.full(group.sequences, group.final_slots + 1)
        self._padding = np.concatenate([self._padding, ended])
        self._release_batch(self.pending)

    def _leave(self, group: Group, grants: list[Grant], swap: bool = False) -> None:
        super()._leave(group, grants, swap)
        self._release_batch(grants)

    def _release_batch(self, grants: list[Grant]) -> None:
        if not len(self.running):
            for ended in self._ended:
                self._release(ended, grants)
            self._ended, self._padding = [], NO_ROWS
