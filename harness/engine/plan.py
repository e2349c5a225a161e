"""What one step computes: the value that goes from a scheduler to the executor and the meter."""

from __future__ import annotations

from dataclasses import dataclass, field

from allocators.base import Grant, IntArray
from harness.engine.group import Group
from harness.engine.running import NO_ROWS


@dataclass(slots=True)
class Prefill:
    """One gang to compute: `prompt_tokens` by its first row, then `private_tokens` by each row."""

    group: Group
    grant: Grant
    prompt_tokens: int
    private_tokens: int

    @property
    def computed_tokens(self) -> int:
        """Tokens that the step computes for this gang; a prefix hit is not computed."""
        private = self.private_tokens * self.group.sequences
        return self.prompt_tokens - self.grant.cached_tokens + private


@dataclass(slots=True)
class Chunk:
    """A piece of one sequence: `new_tokens` behind the `past_tokens` whose KV is there.

    `hit_tokens` of the past were found in the prefix cache when this step admitted the sequence.
    A token is sampled only where the piece is the `last` of what is known of the sequence.
    """

    group: Group
    past_tokens: int
    new_tokens: int
    last: bool
    hit_tokens: int = 0


@dataclass(slots=True)
class Plan:
    """One step, or `steps` equal ones: prompts or pieces to compute, `rows` that decode.

    `grants` are executed first, in order.  `started` are the groups whose first token this step
    samples.
    """

    grants: list[Grant]
    prefills: list[Prefill] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    rows: IntArray = field(default_factory=lambda: NO_ROWS)
    started: list[Group] = field(default_factory=list)
    steps: int = 1
    draft_steps: int = 0  # of a draft model, one after the other, before this step
    preemptions: int = 0

    @property
    def computed_groups(self) -> list[Group]:
        """Groups of which the step computes more than the token that they decode."""
        return [work.group for work in (*self.prefills, *self.chunks)]

    @property
    def all_grants(self) -> list[Grant]:
        return [*self.grants, *(prefill.grant for prefill in self.prefills)]

    @property
    def batched_tokens(self) -> int:
        prompts = sum(prefill.computed_tokens for prefill in self.prefills)
        return prompts + sum(chunk.new_tokens for chunk in self.chunks) + len(self.rows)

    @property
    def hit_tokens(self) -> int:
        prompts = sum(prefill.grant.cached_tokens for prefill in self.prefills)
        return prompts + sum(chunk.hit_tokens for chunk in self.chunks)
