"""What `continuous`, `static` and `orca` share: a prompt is computed whole, in one step.

In the first two that is a step without decodes; `orca` has both in one.

A preempted group may be swapped out instead of forgotten (PagedAttention, section 4.5): then it is
fetched from host memory, and decodes in the next step that does.
"""

from __future__ import annotations

import abc
from dataclasses import replace

import numpy as np

from allocators.base import Grant, IntArray, Prompt
from harness.engine.group import NO_ROWS, Group
from harness.engine.plan import Plan, Prefill
from harness.engine.schedulers.base import Horizon, Scheduler
from harness.engine.setup import Setup


class WholePromptScheduler(Scheduler):
    """Admits in batches of whole prompts; all that run decode together, one token a step."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._beams = setup.sampling.mode == "beam"
        self._swaps = setup.options.preemption == "swap"
        self._expected_tokens = setup.options.expected_output_tokens
        allocator = setup.allocator
        self._pool_tokens = sum(allocator.balance()) * allocator.geometry.page_tokens

    # -- a step ------------------------------------------------------------------------------
    def plan(self, horizon: Horizon) -> Plan | None:
        prefills = self._admit() if self._admits() else self._hold_back()
        if prefills:
            started = [p.group for p in prefills if not p.group.generated]
            return Plan(self._take_pending(), prefills, started=started)
        # Whoever was swapped out needs no prefill: a batch may consist of them alone.
        return self._decode(horizon) if len(self.running) else None

    @abc.abstractmethod
    def _admits(self) -> bool:
        """Say whether the queue is asked before this step."""

    def _hold_back(self) -> list[Prefill]:
        """Admit nobody, whoever waits."""
        self.limit = "policy" if self.waiting else "nobody"
        return []

    def decoding_lengths(self, plan: Plan) -> IntArray:
        return NO_ROWS if plan.prefills else self.grown_lengths()

    def sampled(self, plan: Plan, ends_s: np.ndarray) -> list[Group]:
        computed = [prefill.group.index for prefill in plan.prefills]
        at = np.flatnonzero(np.isin(self.running.owner, computed)) if computed else slice(None)
        return self._count(at, plan.steps, ends_s)

    # -- admission ---------------------------------------------------------------------------
    def _admit(self, *, fetches: bool = True) -> list[Prefill]:
        """Take groups from the queue, in order, while rows, budget and memory last.

        Without `fetches` only those that compute a prompt: one that was swapped out ends it.
        """
        prefills: list[Prefill] = []
        tokens, self.saturated = 0, False
        while self.waiting:
            if not self._head_has_rows():
                self.limit = "sequences"
                return prefills
            group = self.waiting[0]
            if group.swapped:
                if not fetches:
                    self.limit = "preemption"
                elif self._fetch(group):
                    continue
                return prefills
            prompt = self._prompt(group)
            private = group.prompt_tokens + group.generated - prompt.tokens
            tokens += prompt.tokens + private * group.sequences
            if prefills and tokens > self._budget_tokens:
                self.limit = "tokens"
                return prefills
            rows = self._next_rows(group)
            grant = self._ask(group, rows, prompt, group.demand(private))
            if grant is None:
                return prefills
            self._start(group, rows)
            prefills.append(Prefill(group, grant, prompt.tokens, private))
            self._note_admission(prefills[-1])
        self.limit = "nobody"
        return prefills

    def _prompt(self, group: Group) -> Prompt:
        """Return what the group starts from, and how long it must be able to become."""
        prompt = group.prompt(self._streams.of(group))
        if not self._expected_tokens or not len(self.running):
            return prompt
        expected = group.prompt_tokens + max(self._expected_tokens, group.generated)
        return replace(prompt, whole_tokens=min(expected, self._pool_tokens))

    def _fetch(self, group: Group) -> bool:
        """Bring the swapped group at the head of the queue back, if it fits now."""
        rows = self._next_rows(group)
        if not self._granted(self._allocator.resume(rows, group.index), self._pending):
            if not len(self.running):
                raise self._unservable(group, f"{self._empty_pool()} refused to take it back")
            self._refused()
            return False
        group.swapped = False
        self._start(group, rows)
        return True

    def _note_admission(self, prefill: Prefill) -> None:
        self.looked_up_tokens += prefill.prompt_tokens
        if prefill.group.generated:
            # The tokens sampled last had not been fed: computing them is no repetition.
            fresh = prefill.group.sequences if prefill.private_tokens else 1
            self.wasted_tokens += prefill.computed_tokens - fresh

    # -- decoding ----------------------------------------------------------------------------
    def _decode(self, horizon: Horizon) -> Plan | None:
        """Let all that run grow by a token, or by several; whoever came last makes room."""
        plan = Plan(self._take_pending())
        if self._beams:
            self._reassign(plan)
        while len(self.running):
            rows = self.running.rows
            # After a preemption the queue is asked again in the very next step.
            alone = self._beams or plan.preemptions
            steps = 1 if alone else horizon(rows, int(self.running.left.min()), plan.grants, 0)
            grow = self._allocator.take_steps if steps > 1 else self._allocator.grow
            if self._granted(grow(rows, steps), plan.grants):
                plan.rows, plan.steps = rows, steps
                return plan
            refused = self.running.latest()
            self._preempt(refused, plan)
            refused.reassigned_step = refused.generated - 1
        return self._plan_again(plan, horizon)

    def _reassign(self, plan: Plan) -> None:
        """Let each beam go on from its parent; whoever came last makes room for the copies."""
        while len(self.running):
            rows, parents = self.running.rows, self.running.beam_parents()
            if (rows == parents).all():
                return
            if self._granted(self._allocator.reassign(rows, parents), plan.grants):
                return
            self._preempt(self.running.latest(), plan)

    # -- preemption --------------------------------------------------------------------------
    def _evict(self, group: Group) -> Grant:
        # Whoever came back to an empty pool and got no further would only come back again.
        if self._swaps and (len(self.running) or group.swapped_at != group.generated):
            grant = self._allocator.suspend(group.rows, group.index)
            if grant is not None:
                group.swapped, group.swapped_at = True, group.generated
                return grant
        return super()._evict(group)  # the host is full, or nobody asked it
