"""The `orca` policy: one iteration computes whole prompts and a token of each that runs.

Iteration-level scheduling with selective batching, as Orca has it (Yu et al., OSDI 2022, section 3,
and Algorithm 1 in section 4.2).  Of all requests, in order of arrival, up to `max_num_seqs` are
selected; a new one only if its whole reservation fits beside those made (there: `n_rsrv`), and
the first that does not fit ends the selection.  Whoever runs came earlier and is selected always:

    running, in order    a slot for each; refused: the last of the running is preempted
    waiting, in order    if none was preempted: whole prompts, while rows and memory allow

What a reservation is, is the allocator's affair, and one that reserves a life never preempts.  For
the others, that grow, the rules of preemption are those of `continuous`.  A group that was swapped
out comes back before the running grow, since it decodes in the same iteration.
"""

from __future__ import annotations

import sys

import numpy as np

from allocators.base import IntArray
from harness.engine.group import Group
from harness.engine.plan import Plan
from harness.engine.schedulers.base import Horizon, one_step
from harness.engine.schedulers.continuous import ContinuousScheduler


class OrcaScheduler(ContinuousScheduler):
    """Asks the queue in every step, for prompts that are computed beside the decodes."""

    @staticmethod
    def default_budget_tokens(max_len: int) -> int:
        return sys.maxsize  # requests are counted, tokens are not: `max_bs` of Algorithm 1

    def plan(self, horizon: Horizon) -> Plan | None:
        self.saturated = False
        while self._head_has_rows() and self.waiting[0].swapped and self._fetch(self.waiting[0]):
            pass
        held_back = self.saturated
        plan = self._decode(one_step) if len(self.running) else Plan(self._take_pending())
        if plan is None or plan.preemptions:
            return plan
        if not held_back:
            plan.prefills = self._admit(fetches=False)
            plan.started = [p.group for p in plan.prefills if not p.group.generated]
        if not len(self.running):
            self._pending = plan.grants
            return None
        # An extent that moves leaves a hole, in which the next step may fetch whoever is held back.
        if not (plan.prefills or self._beams or (held_back and plan.grants)):
            self._go_on(plan, horizon)
        return plan

    def decoding_lengths(self, plan: Plan) -> IntArray:
        return self.grown_lengths()[: len(plan.rows)]  # whoever was admitted stands behind them

    def sampled(self, plan: Plan, ends_s: np.ndarray) -> list[Group]:
        return self._count(slice(None), plan.steps, ends_s)
