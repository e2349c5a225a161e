"""Speculative decoding: a draft of some tokens a step, of which the model keeps a leading run.

Each sequence feeds its last token and `draft_tokens` guesses, and so takes that many slots and one
more.  The model accepts each guess with probability `acceptance_rate` until the first it rejects,
and samples one token behind them (Leviathan et al., ICML 2023, arXiv 2211.17192); the slots of
rejected guesses are given back by `truncate`.  Guesses are optional: where there is no memory for
them the sequence decodes one token, and nobody is preempted for a guess.
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray, Unsupported
from harness.engine.group import NO_ROWS, Group
from harness.engine.plan import Chunk, Plan
from harness.engine.schedulers.base import Horizon, one_step
from harness.engine.schedulers.continuous import ContinuousScheduler
from harness.engine.setup import Setup


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


class SpeculativeScheduler(ContinuousScheduler):
    """The `continuous` policy with a draft behind every decoded token; single sequences."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._draft_tokens = setup.sampling.draft_tokens
        self._acceptance_rate = setup.sampling.acceptance_rate
        self._seed = setup.seed

    @classmethod
    def check(cls, setup: Setup) -> None:
        super().check(setup)
        policy = setup.options.policy
        if policy != "continuous":
            raise Unsupported(
                f"sampling.mode=speculative runs with engine=continuous, not {policy}"
            )

    def decoding_lengths(self, plan: Plan) -> IntArray:
        return NO_ROWS  # every row is a piece of several tokens; nothing decodes one by one

    def _decode(self, horizon: Horizon) -> Plan | None:
        # How far a sequence gets is known only once its draft was checked.
        plan = super()._decode(one_step)
        if plan is None or plan.prefills or plan.chunks:
            return plan  # nothing decodes, or it was planned again and has its drafts
        running = self.running
        past = running.lengths
        drafts = np.zeros(len(past), dtype=np.int64)
        wanted = np.minimum(self._draft_tokens, running.left - 1)
        for n in np.unique(wanted[wanted > 0]).tolist():
            at = np.flatnonzero(wanted == n)
            if self._granted(self._allocator.grow(plan.rows[at], n), plan.grants):
                drafts[at] = n
        groups = [running.groups[index] for index in running.owner.tolist()]
        plan.chunks = [
            Chunk(group, before, 1 + drafted, last=True)
            for group, before, drafted in zip(groups, past.tolist(), drafts.tolist(), strict=True)
        ]
        plan.rows, plan.draft_steps = NO_ROWS, int(drafts.max(initial=0))
        return plan

    def sampled(self, plan: Plan, ends_s: np.ndarray) -> list[Group]:
        if not plan.chunks:
            return super().sampled(plan, ends_s)
        gained = np.zeros(len(plan.chunks), dtype=np.int64)
        sampled_before = self.running.outputs - self.running.left
        for i, chunk in enumerate(plan.chunks):
            drafted = chunk.new_tokens - 1
            accepted = accepted_guesses(
                self._seed,
                chunk.group.index,
                int(sampled_before[i]),
                drafted,
                self._acceptance_rate,
            )
            gained[i] = accepted + 1
            if drafted > accepted:
                row = int(chunk.group.rows[0])
                self._granted(self._allocator.truncate(row, drafted - accepted), self._pending)
                self.wasted_tokens += drafted - accepted
        return self._count(slice(None), gained, ends_s)
