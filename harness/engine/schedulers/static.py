"""The `static` policy: a batch is formed, run until its last sequence ends, and then released.

As FasterTransformer does it: sequences that have ended stay, padded, with all of their memory.
"""

from __future__ import annotations

import sys

import numpy as np

from allocators.base import Grant, IntArray
from harness.engine.group import NO_ROWS, Group
from harness.engine.plan import Plan
from harness.engine.schedulers.base import Horizon, one_step
from harness.engine.schedulers.whole_prompts import WholePromptScheduler
from harness.engine.setup import Setup


class StaticScheduler(WholePromptScheduler):
    """Asks the queue only when nothing runs."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._ended: list[Group] = []
        self._padding = NO_ROWS  # the lengths of their sequences, the token to come included

    @staticmethod
    def default_budget_tokens(max_len: int) -> int:
        return sys.maxsize  # a batch is not filled up later: memory alone bounds it

    def _admits(self) -> bool:
        return not len(self.running)

    def _decode(self, horizon: Horizon) -> Plan | None:
        # A batch of swapped groups decodes at once: it is limited by what ended it, in one step.
        formed = self.limit not in ("policy", "nobody")
        return super()._decode(one_step if formed else horizon)

    def grown_lengths(self) -> IntArray:
        # Sequences that have ended are still computed; they come last.
        lengths = super().grown_lengths()
        return np.concatenate([lengths, self._padding]) if len(self._padding) else lengths

    def sampled(self, plan: Plan, ends_s: np.ndarray) -> list[Group]:
        self._padding = self._padding + plan.steps
        return super().sampled(plan, ends_s)

    def _preempt(self, group: Group, plan: Plan) -> None:
        super()._preempt(group, plan)
        self._release_batch(plan.grants)

    def _end(self, group: Group) -> None:
        self._streams.forget(group)
        self._ended.append(group)
        ended = np.full(group.sequences, group.final_slots + 1)
        self._padding = np.concatenate([self._padding, ended])
        self._release_batch(self._pending)

    def _release_batch(self, grants: list[Grant]) -> None:
        """Give the memory of all back, once nobody of the batch runs any more."""
        if not len(self.running):
            for ended in self._ended:
                self._release(ended, grants)
            self._ended, self._padding = [], NO_ROWS
