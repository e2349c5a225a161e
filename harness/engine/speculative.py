"""Speculative decoding: a draft of some tokens a step, of which the model keeps a leading run.

Each sequence feeds its last token and `draft_tokens` guesses, and so takes that many slots and one
more.  The model accepts each guess with probability `acceptance_rate` until the first it rejects,
and samples one token behind them (Leviathan et al., ICML 2023, arXiv 2211.17192); the slots of
rejected guesses are given back by `truncate`.  Guesses are optional: where there is no memory for
them the sequence decodes one token, and nobody is preempted for a guess.
"""

from __future__ import annotations

import numpy as np

from allocators.base import EMPTY_GRANT, IntArray
from harness.engine.group import Group
from harness.engine.plan import Chunk, Plan
from harness.engine.running import NO_ROWS
from harness.engine.scheduler import Horizon, Scheduler


def accepted_guesses(
    seed: int, request: int, first_token: int, drafted: int, acceptance_rate: float
) -> int:
    """Return how many of `drafted` guesses are accepted behind output token `first_token`.

    Depends on nothing but its arguments, so every allocator sees the same luck, also after a
    preemption.
    """
    key = [seed & (2**64 - 1), (request << 32) + first_token]
    draws = np.random.Generator(np.random.Philox(key=key)).random(drafted)
    rejected = np.flatnonzero(draws >= acceptance_rate)
    return int(rejected[0]) if len(rejected) else drafted


class SpeculativeScheduler(Scheduler):
    """The `continuous` policy with a draft behind every decoded token; single sequences."""

    draft_tokens: int = 0
    acceptance_rate: float = 0.0
    seed: int = 0

    def decoding_lengths(self, plan: Plan | None = None) -> IntArray:
        # Every row is a piece of several tokens; nothing decodes one by one.
        return super().decoding_lengths(plan) if plan is None else NO_ROWS

    def _decode(self, horizon: Horizon) -> Plan | None:
        plan = super()._decode(lambda rows, at_most, grants, granted: 1)
        if plan is None or plan.prefills:
            return plan
        running = self.running
        past = running.lengths
        drafts = np.zeros(len(past), dtype=np.int64)
        wanted = np.minimum(self.draft_tokens, running.left - 1)
        for n in np.unique(wanted[wanted > 0]).tolist():
            at = np.flatnonzero(wanted == n)
            grant = self.allocator.grow(plan.rows[at], n)
            if grant is not None:
                drafts[at] = n
                if grant is not EMPTY_GRANT:
                    plan.grants.append(grant)
        groups = [running.groups[index] for index in running.owner.tolist()]
        plan.chunks = [
            Chunk(group, before, 1 + drafted, last=True)
            for group, before, drafted in zip(groups, past.tolist(), drafts.tolist(), strict=True)
        ]
        plan.rows, plan.draft_steps = NO_ROWS, int(drafts.max(initial=0))
        return plan

    def sampled(self, plan: Plan) -> list[Group]:
        if not plan.chunks:
            return super().sampled(plan)
        gained = np.zeros(len(plan.chunks), dtype=np.int64)
        sampled_before = self.running.outputs - self.running.left
        for i, chunk in enumerate(plan.chunks):
            drafted = chunk.new_tokens - 1
            accepted = accepted_guesses(
                self.seed, chunk.group.index, int(sampled_before[i]), drafted, self.acceptance_rate
            )
            gained[i] = accepted + 1
            if drafted > accepted:
                row = int(chunk.group.rows[0])
                grant = self.allocator.truncate(row, drafted - accepted)
                if grant is not EMPTY_GRANT:
                    self.pending.append(grant)
                self.wasted_tokens += drafted - accepted
        done = self.running.sampled(slice(None), gained)
        for group in done:
            self._end(group)
        return done
