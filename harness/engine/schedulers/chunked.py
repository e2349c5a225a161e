"""The `chunked` policy: the rules of vLLM's V1 scheduler, one token budget a step.

A sequence has `known` tokens (prompt and output so far) of which `length` are computed; a step
computes min(known - length, what is left of the budget) of them and takes slots for exactly those.
Whoever decodes is only the case of one token to go.

    running, in order    grow; refused: the last of the running is preempted until it fits
    waiting, in order    if none was preempted: while budget, sequences and memory allow

A group of several sequences (parallel sampling) is one of the queue, with n rows.  Its first row
computes the prompt for all and samples the first token of each; in the next step in which it is
served the others are forked from it, and from then on all compute the same number of tokens a step.

    n rows reserved    [ prompt in pieces, by rows[0] | fork | private tokens, in lockstep  ... ]

It is admitted only if all it has to compute fits at present: its prompt once, and for each sequence
what that had generated.  `docs/scheduling.md` states every rule, with what each is for.
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray, NeverFits, Prompt, Unsupported
from harness.engine.group import NO_ROWS, Group
from harness.engine.plan import Chunk, Plan
from harness.engine.schedulers.base import DEFAULT_BUDGET_TOKENS, Horizon, Scheduler
from harness.engine.setup import Setup


class ChunkedScheduler(Scheduler):
    """Groups of equally many sequences each, which only append."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        # Places among the running of those of the plan that decode, and of those that sample.
        self._decoding = self._sampling = NO_ROWS

    @classmethod
    def check(cls, setup: Setup) -> None:
        if setup.sampling.mode == "beam":
            raise Unsupported(
                "engine=chunked schedules sequences that only append, sampling.mode=beam replaces "
                "some at every step: use engine=continuous"
            )
        if setup.options.preemption == "swap":
            raise Unsupported("engine=chunked preempts by recompute only, as vLLM's V1 scheduler")
        if setup.options.expected_output_tokens:
            raise Unsupported("engine=chunked does not admit by expected length, see continuous")
        super().check(setup)
        sequences, budget = setup.sampling.sequences, cls.budget_tokens(setup)
        if budget < sequences:
            raise Unsupported(
                f"a request of {sequences} sequences decodes as many tokens a step, more "
                f"than max_num_batched_tokens={budget}"
            )

    @staticmethod
    def default_budget_tokens(max_len: int) -> int:
        return DEFAULT_BUDGET_TOKENS

    # -- a step ------------------------------------------------------------------------------
    def plan(self, horizon: Horizon) -> Plan | None:
        plan = Plan(self._take_pending())
        self.saturated = False
        budget = self._schedule_running(plan)
        if not plan.preemptions:
            self._schedule_waiting(plan, budget)
        if not len(self.running):
            if plan.preemptions:
                return self._plan_again(plan, horizon)
            self._pending = plan.grants
            return None
        at = self._sampling
        first = at[self.running.left[at] == self.running.outputs[at]]
        plan.started = [self.running.groups[i] for i in self.running.owner[first].tolist()]
        if len(plan.rows) == len(self.running.rows) and not (plan.started or plan.preemptions):
            self._go_on(plan, horizon)
        return plan

    def decoding_lengths(self, plan: Plan) -> IntArray:
        return self.grown_lengths()[self._decoding]

    def sampled(self, plan: Plan, ends_s: np.ndarray) -> list[Group]:
        return self._count(self._sampling, plan.steps, ends_s)

    # -- running -----------------------------------------------------------------------------
    def _schedule_running(self, plan: Plan) -> int:
        """Give each running group its slots, in order; return what is left of the budget.

        Nothing is left for others where one of them had to be left out.
        """
        running = self.running
        at = self._decode_leading(plan)
        budget = self._budget_tokens - at
        decoding, sampling = [np.arange(at)], [np.arange(at)]
        while at < len(running.rows) and budget:
            group = running.groups[int(running.owner[at])]
            past = self._computed_tokens(group)
            forks = not group.forked and past == group.prompt_tokens
            if forks and budget >= group.sequences and not self._fork(group, at, plan):
                self._preempt(running.latest(), plan)
                continue
            rows = group.held_rows
            known = group.prompt_tokens + int(running.outputs[at] - running.left[at])
            due = (known if group.forked else group.prompt_tokens) - past
            tokens = min(due, budget // len(rows))
            if not tokens:
                budget = 0
                break
            if not self._grow(rows, tokens, plan):
                # Nobody that this step has scheduled: they all stand before the refused one.
                self._preempt(running.latest(), plan)
                continue
            places = at + np.arange(len(rows))
            if group.forked and due == 1:
                decoding.append(places)
                sampling.append(places)
            else:
                last = past + tokens == known
                plan.chunks += [
                    Chunk(group, past, tokens, last, sequence=i) for i in range(len(rows))
                ]
                if last:
                    sampling.append(places)
            budget -= len(rows) * tokens
            at += len(rows)
        self._decoding, self._sampling = np.concatenate(decoding), np.concatenate(sampling)
        plan.rows = running.rows[self._decoding]
        return budget

    def _decode_leading(self, plan: Plan) -> int:
        """Grow those at the front that only decode, in few calls; return how many sequences."""
        running = self.running
        if not len(running):
            return 0
        n = next(iter(running.groups.values())).sequences
        due = self.grown_lengths() - self._allocator.length[running.rows]
        others = np.flatnonzero((due != 1) | running.unforked)
        # This cuts no group in two: a forked one always finds n tokens of the budget left.
        decoding = min(int(others[0]) if len(others) else len(due), self._budget_tokens)
        at = 0
        while at < decoding:
            at += n * self._grow_groups(running.rows[at:decoding].reshape(-1, n), plan)
            if at < decoding:
                self._preempt(running.latest(), plan)
                decoding = min(decoding, len(running.rows))
        return at

    def _grow_groups(self, groups: IntArray, plan: Plan) -> int:
        """Grow groups [groups, rows] by one slot, in order, until one is refused; return how many.

        The whole batch in one call if it fits, else its largest leading part: as many as the policy
        says, or by halves.  A policy that serves a batch in order so gives what a call for each
        group would, block numbers included: what is copied on write is copied when a group first
        grows, and that is not here.
        """
        if self._grow(groups.ravel(), 1, plan):
            return len(groups)
        leading = self._allocator.leading(groups.ravel())
        if leading is None:
            calls = [1 << bit for bit in reversed(range((len(groups) - 1).bit_length()))]
        else:
            calls = [leading // groups.shape[1]]
        done = 0
        for size in calls:
            part = groups[done : done + size]
            if len(part) and self._grow(part.ravel(), 1, plan):
                done += len(part)
        while done < len(groups) and self._grow(groups[done], 1, plan):
            done += 1
        return done

    def _grow(self, rows: IntArray, tokens: int, plan: Plan) -> bool:
        return self._granted(self._allocator.grow(rows, tokens), plan.grants)

    def _fork(self, group: Group, at: int, plan: Plan) -> bool:
        """Let all sequences of a group go on from its first, which holds the prompt."""
        generated = int(self.running.outputs[at] - self.running.left[at])
        try:
            grant = self._allocator.fork(
                int(group.rows[0]), group.rows[1:], group.demand(private_tokens=generated)
            )
        except NeverFits as error:
            raise self._unservable(group, str(error)) from error
        if not self._granted(grant, plan.grants):
            return False
        self.running.fork(group, at)
        return True

    def _computed_tokens(self, group: Group) -> int:
        """Return how many tokens of each of its sequences are in memory."""
        return int(self._allocator.length[group.rows[0]])

    # -- admission ---------------------------------------------------------------------------
    def _schedule_waiting(self, plan: Plan, budget: int) -> None:
        """Take groups from the queue, in order, while rows, budget and memory last."""
        while self.waiting:
            if not self._head_has_rows() or not budget:
                self.limit = "tokens" if self._head_has_rows() else "sequences"
                return
            group = self.waiting[0]
            single = group.sequences == 1
            known = group.prompt_tokens + group.generated
            end = known if single else group.prompt_tokens
            stream = self._streams.of(group)
            hit = 0 if stream is None else self._allocator.lookup(Prompt(end, stream))
            tokens = min(end, hit + budget)
            rows = self._next_rows(group)
            prompt = Prompt(tokens, stream, whole_tokens=known)
            grant = self._ask(group, rows[:1], prompt, group.demand(0))
            if grant is None:
                return
            assert grant.cached_tokens == hit, "the hit is not what it was"
            if tokens == known:
                self._sampling = np.append(self._sampling, len(self.running.rows))
            group.forked = single
            self._start(group, rows)
            self._granted(grant, plan.grants)
            plan.chunks.append(Chunk(group, hit, tokens - hit, tokens == known, hit_tokens=hit))
            budget -= tokens - hit
            self.looked_up_tokens += end
            self.wasted_tokens += max(0, group.lost_tokens - hit)
            group.lost_tokens = 0
        self.limit = "nobody"

    # -- preemption --------------------------------------------------------------------------
    def _preempt(self, group: Group, plan: Plan) -> None:
        computed = self._computed_tokens(group)
        shared = min(computed, group.prompt_tokens)
        group.lost_tokens = shared + group.sequences * (computed - shared)
        alone = len(self.running) == 1
        super()._preempt(group, plan)
        if alone and group.sequences > 1:
            # Admitted to the empty pool it gets on by one token at least, or never will.
            if group.refused_alone == group.generated:
                raise self._unservable(group, f"{self._empty_pool()} refused all its sequences")
            group.refused_alone = group.generated
