"""The `chunked` policy: the rules of vLLM's V1 scheduler, one token budget a step.

A sequence has `known` tokens (prompt and output so far) of which `length` are computed; a step
computes min(known - length, what is left of the budget) of them and takes slots for exactly those.
Whoever decodes is only the case of one token to go.

    running, in order    grow; refused: the last of the running is preempted until it fits
    waiting, in order    if none was preempted: while budget, sequences and memory allow

`docs/scheduling.md` states every rule, with what each is for.
"""

from __future__ import annotations

import heapq

import numpy as np

from allocators.base import EMPTY_GRANT, IntArray, Prompt
from harness.engine.group import Group
from harness.engine.plan import Chunk, Plan
from harness.engine.scheduler import Horizon, Scheduler


class ChunkedScheduler(Scheduler):
    """Single sequences only: a gang has no place in a queue of independent sequences."""

    def decoding_lengths(self, plan: Plan | None = None) -> IntArray:
        lengths = super().decoding_lengths()
        return lengths if plan is None else lengths[: len(plan.rows)]

    # -- the step ----------------------------------------------------------------------------
    def plan(self, horizon: Horizon) -> Plan | None:
        plan = Plan(self._take_pending())
        self.starved = False
        budget = self._schedule_running(plan)
        if not plan.preemptions:
            self._schedule_waiting(plan, budget)
        if not len(self.running):
            self.pending = plan.grants
            if not plan.preemptions:
                return None
            # The only one that ran was preempted: it is admitted again now, or can never fit.
            again = self.plan(horizon)
            if again is not None:
                again.preemptions += plan.preemptions
            return again
        at = self._sampling(plan)
        first = at[self.running.left[at] == self.running.outputs[at]]
        plan.started = [self.running.groups[i] for i in self.running.owner[first].tolist()]
        if len(plan.rows) == len(self.running) and not (plan.started or plan.preemptions):
            self._go_on(plan, horizon)
        return plan

    def _schedule_running(self, plan: Plan) -> int:
        """Give each running sequence its slots, in order; return what is left of the budget."""
        budget = self._budget_tokens
        running = self.running
        due = running.lengths + 1 - self.allocator.inner.length[running.rows]
        many = np.flatnonzero(due != 1)
        decoding = min(int(many[0]) if len(many) else len(due), budget)
        at = 0
        while at < decoding:
            at += self._grow_leading(running.rows[at:decoding], plan)
            if at < decoding:
                self._preempt(running.latest(), plan)
                decoding = min(decoding, len(running.rows))
        plan.rows = running.rows[:at]
        budget -= at
        while at < len(running.rows) and budget:
            tokens = min(int(due[at]), budget)
            row = running.rows[at : at + 1]
            past = int(self.allocator.inner.length[row[0]])
            grant = self.allocator.grow(row, tokens)
            if grant is None:
                # Nobody that this step has scheduled: they all stand before the refused one.
                self._preempt(running.latest(), plan)
                continue
            if grant is not EMPTY_GRANT:
                plan.grants.append(grant)
            group = running.groups[int(running.owner[at])]
            plan.chunks.append(Chunk(group, past, tokens, last=tokens == int(due[at])))
            budget -= tokens
            at += 1
        return budget

    def _grow_leading(self, rows: IntArray, plan: Plan) -> int:
        """Grow `rows` by one slot, in order, until one is refused; return how many were grown.

        The whole batch in one call if it fits, else its largest leading part by halves.  A policy
        that serves a batch in order so gives what a call a row would, block numbers included.
        """
        calls = [len(rows)]
        size = (1 << (len(rows) - 1).bit_length()) >> 1
        while size:
            calls.append(size)
            size //= 2
        done = 0
        for size in calls:
            done += self._grow_all(rows[done : done + size], plan) if done < len(rows) else 0
        while done < len(rows) and self._grow_all(rows[done : done + 1], plan):
            done += 1
        return done

    def _grow_all(self, rows: IntArray, plan: Plan) -> int:
        grant = self.allocator.grow(rows)
        if grant is None:
            return 0
        if grant is not EMPTY_GRANT:
            plan.grants.append(grant)
        return len(rows)

    def _schedule_waiting(self, plan: Plan, budget: int) -> None:
        while self.waiting and self._free_rows and budget:
            group = self.waiting[0]
            known = group.prompt_tokens + group.generated
            stream = self.streams.of(group)
            hit = 0 if stream is None else self.allocator.lookup(Prompt(known, stream))
            tokens = min(known, hit + budget)
            row = np.array(self._free_rows[:1], dtype=np.int64)
            prompt = Prompt(tokens, stream, whole_tokens=known)
            grant = self._ask(group, row, prompt, group.demand(0))
            if grant is None:
                self.starved = True
                return
            assert grant.cached_tokens == hit, "the hit is not what it was"
            heapq.heappop(self._free_rows)
            group.rows = row
            self.waiting.popleft()
            self.running.add(group)
            if grant is not EMPTY_GRANT:
                plan.grants.append(grant)
            plan.chunks.append(Chunk(group, hit, tokens - hit, tokens == known, hit_tokens=hit))
            budget -= tokens - hit
            self.looked_up_tokens += known
            self.wasted_tokens += max(0, group.lost_tokens - hit)
            group.lost_tokens = 0

    def _preempt(self, group: Group, plan: Plan) -> None:
        group.lost_tokens = int(self.allocator.inner.length[group.rows[0]])
        super()._preempt(group, plan)

    def _go_on(self, plan: Plan, horizon: Horizon) -> None:
        """Run further steps at once, in which all decode and whoever waits stays refused.

        A refusal lasts as long as nothing is released: growth only takes memory, and publishes no
        block that the head of the queue could hit.
        """
        rows = plan.rows
        plan.steps = horizon(rows, int(self.running.left.min()), plan.grants, 1)
        if plan.steps > 1:
            grant = self.allocator.grow(rows, plan.steps - 1)
            assert grant is EMPTY_GRANT, "a quiet step needed an operation on memory"

    # -- ends --------------------------------------------------------------------------------
    def _sampling(self, plan: Plan) -> IntArray:
        """Return which of the running sample a token; a step schedules a leading run of them."""
        decoding = len(plan.rows)
        last = [decoding + i for i, chunk in enumerate(plan.chunks) if chunk.last]
        return np.concatenate([np.arange(decoding), np.array(last, dtype=np.int64)])

    def sampled(self, plan: Plan) -> list[Group]:
        done = self.running.sampled(self._sampling(plan), plan.steps)
        for group in done:
            self._end(group)
        return done
