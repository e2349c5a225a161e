"""What every policy shares: the queue, the rows, preemption, and what becomes of memory.

First come, first served.  A group is admitted, preempted and ended whole.  Under pressure the
latest arrival is preempted: its memory is released and it goes back to the head of the queue, to be
computed again from its prompt and what it had generated.  The queue is strict, so nothing new is
admitted while any is preempted (PagedAttention, section 4.5).
"""

from __future__ import annotations

import abc
from bisect import insort
from collections import deque
from typing import Protocol

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    AllocatorError,
    Demand,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    Unsupported,
)
from harness.engine.group import NO_ROWS, Group
from harness.engine.plan import Plan
from harness.engine.running import Running
from harness.engine.setup import Setup
from harness.engine.streams import Streams

#: the token budget of a step where none is given, as vLLM's server has it
DEFAULT_BUDGET_TOKENS = 2048


class Unservable(AllocatorError):
    """A request that this allocator can never serve from this pool; the text names both."""


def unservable(name: str, prompt: int, output: int, sequences: int, reason: str) -> Unservable:
    """Return the error of a request that can never be served."""
    return Unservable(
        f"request {name!r} (prompt {prompt}, output {output}, {sequences} sequences) can never "
        f"fit: {reason}"
    )


class Horizon(Protocol):
    """How far the engine sees: what a scheduler asks before it plans several steps as one."""

    def __call__(self, rows: IntArray, at_most: int, grants: list[Grant], granted: int) -> int:
        """Return how many steps, 1 to `at_most`, in which `rows` only grow may be run in one go.

        The first of them executes `grants`, and the slots of the first `granted` are taken already.
        """


def one_step(rows: IntArray, at_most: int, grants: list[Grant], granted: int) -> int:
    """Be the horizon of a policy that does not know yet whether further steps will be alike."""
    return 1


class Scheduler(abc.ABC):
    """The part of a policy that all have in common; a policy decides `plan` and `sampled`."""

    def __init__(self, setup: Setup) -> None:
        self._allocator = setup.allocator
        self._requests = setup.requests
        self._streams = Streams(setup.requests, setup.allocator.has_prefix_index)
        self._budget_tokens = self.budget_tokens(setup)
        self._free_rows = list(range(setup.max_rows))  # sorted
        self._pending: list[Grant] = []  # executed with the next step
        max_len = setup.allocator.geometry.max_len
        self.waiting: deque[Group] = deque()
        self.running = Running(setup.max_rows, max_len, setup.sampling.mode == "beam")
        self.saturated = False  # the head of the queue was refused memory when last asked for
        self.limit = "nobody"  # of `LIMITS`: why the head of the queue is not in the planned step
        self.looked_up_tokens = 0  # of all admissions: what a prefix cache could have given
        self.wasted_tokens = 0  # computed, lost by a preemption and computed again

    # -- what a policy takes -----------------------------------------------------------------
    @classmethod
    def check(cls, setup: Setup) -> None:
        """Raise `Unsupported` for requests or options that the policy can never serve."""
        sequences, rows = setup.sampling.sequences, setup.max_rows
        if sequences > rows:
            raise Unsupported(
                f"a request of {sequences} sequences never fits in max_num_seqs={rows}"
            )

    @classmethod
    def budget_tokens(cls, setup: Setup) -> int:
        """Return how many tokens a step may compute."""
        given = setup.options.max_num_batched_tokens
        return given or cls.default_budget_tokens(setup.allocator.geometry.max_len)

    @staticmethod
    @abc.abstractmethod
    def default_budget_tokens(max_len: int) -> int:
        """Return the budget where none is given, for sequences of up to `max_len` tokens."""

    # -- a step ------------------------------------------------------------------------------
    @abc.abstractmethod
    def plan(self, horizon: Horizon) -> Plan | None:
        """Return what to run next, or None when nothing can run before another request arrives.

        Raises `Unservable` for a request that cannot be served at all.
        """

    @abc.abstractmethod
    def decoding_lengths(self, plan: Plan) -> IntArray:
        """Return the slots that each row which decodes in `plan` fills, its new token included."""

    def grown_lengths(self) -> IntArray:
        """Return the slots of all that run, each grown by one token."""
        return self.running.lengths + 1

    @abc.abstractmethod
    def sampled(self, plan: Plan, ends_s: np.ndarray) -> list[Group]:
        """Count the tokens that the plan's sequences sampled; return the groups that have ended.

        ends_s: [steps] when each of the plan's steps ended, in seconds.
        """

    def _count(
        self, places: slice | IntArray, tokens: int | IntArray, ends_s: np.ndarray
    ) -> list[Group]:
        """Count tokens for the sequences at these places of the running; end who is done."""
        done = self.running.sampled(places, tokens, ends_s)
        if done:
            self.running.remove(done)
        for group in done:
            self._end(group)
        return done

    @property
    def waits_for_memory(self) -> bool:
        """Whether memory that is given back could let somebody in, in the step being planned."""
        return bool(self.waiting) and self._head_has_rows()

    def _plan_again(self, plan: Plan, horizon: Horizon) -> Plan | None:
        """Drop a plan whose last sequence was preempted: it is admitted now, or can never fit."""
        self._pending = plan.grants
        again = self.plan(horizon)
        if again is not None:
            again.preempted += plan.preempted
        return again

    # -- admission ---------------------------------------------------------------------------
    def _head_has_rows(self) -> bool:
        return bool(self.waiting) and len(self._free_rows) >= self.waiting[0].sequences

    def _next_rows(self, group: Group) -> IntArray:
        return np.array(self._free_rows[: group.sequences], dtype=np.int64)

    def _ask(self, group: Group, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        """Ask memory for the head of the queue; None as long as it has to wait."""
        try:
            grant = self._allocator.admit(rows, prompt, demand)
        except NeverFits as error:
            raise self._unservable(group, str(error)) from error
        if grant is None:
            if not len(self.running):
                raise self._unservable(group, f"{self._empty_pool()} refused it")
            self._refused()
        return grant

    def _refused(self) -> None:
        """Note that memory keeps the head of the queue out."""
        self.saturated, self.limit = True, "memory"

    def _start(self, group: Group, rows: IntArray) -> None:
        """Let the head of the queue run in these rows."""
        del self._free_rows[: group.sequences]
        group.rows = rows
        self.waiting.popleft()
        self.running.add(group)

    def _empty_pool(self) -> str:
        return f"the empty pool of {self._allocator.geometry.capacity_tokens} tokens"

    def _unservable(self, group: Group, reason: str) -> Unservable:
        name = self._requests.name(group.index)
        tokens = group.prompt_tokens, group.output_tokens
        return unservable(name, *tokens, group.sequences, reason)

    # -- growth ------------------------------------------------------------------------------
    def _granted(self, grant: Grant | None, grants: list[Grant]) -> bool:
        """Say whether memory agreed; what it has to do for that is executed with `grants`."""
        if grant is not None and grant is not EMPTY_GRANT:
            grants.append(grant)
        return grant is not None

    def _take_pending(self) -> list[Grant]:
        grants, self._pending = self._pending, []
        return grants

    def _go_on(self, plan: Plan, horizon: Horizon) -> None:
        """Run further steps at once, in which all decode and whoever waits stays refused.

        A refusal lasts as long as nothing is released: growth only takes memory, and publishes no
        block that the head of the queue could hit.
        """
        rows = plan.rows
        plan.steps = horizon(rows, int(self.running.left.min()), plan.grants, 1)
        if plan.steps > 1:
            grant = self._allocator.take_steps(rows, plan.steps - 1)
            assert grant is EMPTY_GRANT, "a quiet step needed an operation on memory"

    # -- preemption and release --------------------------------------------------------------
    def _preempt(self, group: Group, plan: Plan) -> None:
        """Take a running group's memory and put it at the head of the queue."""
        self.running.remove([group])
        self._granted(self._evict(group), plan.grants)
        self._free_rows_of(group)
        group.preemptions += 1
        plan.preempted.append(group)
        self.waiting.appendleft(group)
        self.saturated, self.limit = True, "preemption"  # nobody is let in beside a preemption

    def _evict(self, group: Group) -> Grant:
        """Take the memory of a group that will be back."""
        return self._allocator.preempt(group.held_rows)

    def _end(self, group: Group) -> None:
        """See off a group that runs no more."""
        self._streams.forget(group)
        self._release(group, self._pending)

    def _release(self, group: Group, grants: list[Grant]) -> None:
        self._granted(self._allocator.release(group.held_rows), grants)
        self._free_rows_of(group)

    def _free_rows_of(self, group: Group) -> None:
        for row in group.rows.tolist():
            insort(self._free_rows, row)
        group.rows = NO_ROWS
