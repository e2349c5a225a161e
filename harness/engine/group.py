"""A request inside the engine: its sequences, which are scheduled and preempted as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from allocators.base import Demand, IntArray, Prompt

NEVER = float("nan")
#: of those that wait, one for all
NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(slots=True, eq=False)
class Group:
    """One request and its sequences.

    A sequence of `generated` tokens is `prompt_tokens + generated - 1` slots long while it runs:
    the token sampled last is fed, and takes its slot, in the next step.  `draw` gives the lineage
    of a request of so many beam steps; None for other modes.
    """

    index: int
    prompt_tokens: int
    output_tokens: int
    sequences: int
    arrival_s: float
    draw: Callable[[int, int], IntArray] | None = None
    rows: IntArray = field(default_factory=lambda: NO_ROWS)
    generated: int = 0
    preemptions: int = 0
    swapped: bool = False  # its KV waits in host memory
    swapped_at: int = -1  # how many tokens it had when it was last swapped out
    reassigned_step: int = -1  # the beam step that was done before it was swapped out
    lost_tokens: int = 0  # computed before its last preemption, until it is admitted again
    #: its sequences exist; else `rows[0]` computes the prompt for all (`chunked` only)
    forked: bool = True
    refused_alone: int = -1  # what it had generated when memory refused it though nobody else ran
    first_scheduled_s: float = NEVER
    first_token_s: float = NEVER
    token_s: float = NEVER  # when its last token was sampled, up to when it last left the batch
    itl_max_s: float = NEVER  # the longest gap between two of its tokens, up to then
    finish_s: float = NEVER
    _lineage: IntArray | None = None

    @property
    def lineage(self) -> IntArray | None:
        """Which candidate each one continues at each beam step, [output - 1, sequences].

        None for other modes.  Drawn when first asked for, so that those who wait have none.
        """
        if self._lineage is None and self.draw is not None:
            self._lineage = self.draw(self.index, self.output_tokens - 1)
        return self._lineage

    @property
    def final_slots(self) -> int:
        """Length of each sequence at its end; the last output token is never fed."""
        return self.prompt_tokens + self.output_tokens - 1

    @property
    def held_rows(self) -> IntArray:
        """The rows that the allocator knows of."""
        return self.rows if self.forked else self.rows[:1]

    @property
    def common_tokens(self) -> int:
        """How many of the generated tokens all sequences share, so that one recomputes for all."""
        if self.sequences == 1:
            return self.generated
        if not self.generated or self.lineage is None:
            return 0
        # The token sampled last is fed again too, so its step counts.
        ancestors = np.arange(self.sequences)
        for step in range(self.generated - 1, 0, -1):
            ancestors = self.lineage[step][ancestors]
            if (ancestors == ancestors[0]).all():
                return step
        return 0

    def prompt(self, token_ids: IntArray | None = None) -> Prompt:
        """What one sequence computes for all: the prompt and what they have generated in common."""
        return Prompt(self.prompt_tokens + self.common_tokens, token_ids)

    def demand(self, private_tokens: int) -> Demand:
        return Demand(self.prompt_tokens, self.output_tokens, private_tokens, self.sequences)
