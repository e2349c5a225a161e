"""Conversations: turns that each send the whole history again, one after the other's answer.

    turn 0   [prefix | user 0] -> answer 0
    turn 1   [prefix | user 0 | answer 0 | user 1] -> answer 1         arrives think_s after the end
    turn 2   [prefix | user 0 | answer 0 | user 1 | answer 1 | user 2] -> answer 2

`prompt` and `output` are the lengths of the user's part and of the answer. A conversation ends
after the turns planned for it, or before the first whose context would exceed max_context_tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workloads.errors import WorkloadError, number, one_of, whole
from workloads.requests import FloatArray, IntArray, RequestTable
from workloads.spec import WorkloadSpec

HISTORIES = ("keep", "drop")
MOST_CONVERSATIONS = 10_000_000
#: seconds beyond which the clock would no longer see a step
MOST_THINK_S = 10**9
#: conversations drawn for each one asked for, before max_context_tokens is called too small
MOST_DRAWN = 64

#: from the name of a length distribution and n: its first n draws
Draw = Callable[[str, int], IntArray]


@dataclass
class Turns:
    """One entry a turn, conversation by conversation; those of a conversation follow each other."""

    conversation: IntArray  # 0, 0, 0, 1, 2, 2, ...
    prompt_tokens: IntArray  # history included
    output_tokens: IntArray
    drawn_as: IntArray  # conversation before those were left out whose first turn was too long

    def table(
        self, spec: WorkloadSpec, think: FloatArray, prefix_id: IntArray | None, prefix_tokens: int
    ) -> RequestTable:
        """The requests. `think` [turns]: draws of mean 1; `prefix_id` [conversations]."""
        mean_s = number("workload.think_time_s", spec.think_time_s, 0, at_most=MOST_THINK_S)
        history = one_of("workload.history", spec.history, HISTORIES)
        rows = np.arange(len(self.conversation))
        first = np.searchsorted(self.conversation, self.conversation)  # of each conversation
        later = rows > first
        turns = (rows - first).tolist()
        table = RequestTable(
            arrival_s=np.zeros(len(rows)),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            ids=[f"{c}/{k}" for c, k in zip(self.conversation.tolist(), turns, strict=True)],
            prefix_id=None if prefix_id is None else prefix_id[self.conversation],
            prefix_tokens=prefix_tokens,
            after=np.where(later, rows - 1, -1),
            think_s=np.where(later, mean_s * think, 0.0),
            keeps_history=history == "keep",
        )
        left_out = int(self.drawn_as[-1] - self.conversation[-1])
        if left_out:
            table.notes.append(
                f"{left_out} conversations were left out: their first turn alone is longer "
                f"than workload.max_context_tokens={spec.max_context_tokens}"
            )
        return table


def plan(spec: WorkloadSpec, prefix_tokens: int, draw: Draw) -> Turns:
    """Draw conversations up to `num_conversations` or `num_requests` turns, whichever is less.

    More of either leaves the first ones as they were. Raises WorkloadError.
    """
    if spec.num_conversations is None and spec.num_requests is None:
        raise WorkloadError("workload.num_requests or workload.num_conversations is needed")
    conversations, requests = spec.num_conversations, spec.num_requests
    if conversations is not None:
        whole("workload.num_conversations", conversations, 1, MOST_CONVERSATIONS)
    if spec.max_context_tokens is not None:
        whole("workload.max_context_tokens", spec.max_context_tokens, at_least=2)
    asked = min(limit for limit in (conversations, requests) if limit is not None)
    drawn = asked
    while True:
        turns = _drawn(spec, prefix_tokens, draw, drawn)
        stop = len(turns.conversation)
        if conversations is not None:
            stop = int(np.searchsorted(turns.conversation, conversations))
        if requests is not None:
            stop = min(stop, requests)
        reached = len(turns.conversation) and int(turns.conversation[-1]) + 1 == conversations
        if stop < len(turns.conversation) or stop == requests or reached:
            return Turns(**{name: column[:stop] for name, column in vars(turns).items()})
        if drawn > MOST_DRAWN * asked:
            raise WorkloadError(
                f"workload.max_context_tokens={spec.max_context_tokens} leaves too few "
                f"conversations: of {drawn} drawn only {len(np.unique(turns.conversation))} have a "
                "first turn that fits; raise it, or shorten workload.prompt and workload.output"
            )
        drawn *= 2


def _drawn(spec: WorkloadSpec, prefix_tokens: int, draw: Draw, conversations: int) -> Turns:
    planned = draw("turns", conversations)
    total = int(planned.sum())
    user, output = draw("prompt", total), draw("output", total)
    conversation = np.repeat(np.arange(conversations), planned)
    length = np.cumsum(user + output)
    first = np.cumsum(planned) - planned
    before = (length - user - output)[first]
    context = prefix_tokens + length - before[conversation]  # at the end of each turn
    fits = np.ones(total, dtype=bool)
    if spec.max_context_tokens is not None:
        fits = context <= spec.max_context_tokens
    kept = np.cumsum(fits[first]) - 1  # contexts grow: a first turn that fits is kept
    return Turns(
        conversation=kept[conversation[fits]],
        prompt_tokens=(context - output)[fits],
        output_tokens=output[fits],
        drawn_as=conversation[fits],
    )
