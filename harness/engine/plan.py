"""What one step computes: the value that goes from a scheduler to the executor and the meter."""

from __future__ import annotations

from dataclasses import dataclass, field

from allocators.base import EMPTY_GRANT, Grant, IntArray
from harness.engine.group import NO_ROWS, Group


@dataclass(slots=True)
class Prefill:
    """One group to compute: `prompt_tokens` by its first row, `private_tokens` by each row."""

    group: Group
    grant: Grant
    prompt_tokens: int
    private_tokens: int

    @property
    def computed_tokens(self) -> int:
        """Tokens that the step computes for this group; a prefix hit is not computed."""
        private = self.private_tokens * self.group.sequences
        return self.prompt_tokens - self.grant.cached_tokens + private


@dataclass(slots=True)
class Chunk:
    """A piece of one sequence: `new_tokens` behind the `past_tokens` whose KV is there.

    `sequence` is the index of its row in `group.rows`; a forked group has one piece a row.
    `hit_tokens` of the past were found in the prefix cache when this step admitted the sequence.
    A token is sampled only where the piece is the `last` of what is known of the sequence.  Of a
    group that is not forked yet the piece is of the prompt, by `rows[0]`, and its last row of
    logits gives the first tokens of all sequences.
    """

    group: Group
    past_tokens: int
    new_tokens: int
    last: bool
    hit_tokens: int = 0
    sequence: int = 0

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled from it; ask before the step's tokens are counted."""
        if not self.last:
            return 0
        return 1 if self.group.forked else self.group.sequences


@dataclass(slots=True)
class Plan:
    """One step, or `steps` equal ones: prompts or pieces to compute, `rows` that decode.

    `grants` are executed first, in order, then those of the prefills, then `before`; `beside` is
    executed by a background thread while the step computes.  Each of `rows` feeds one token, the
    last that is known of it: the one sampled last or, where all but one token of a single
    sequence's prompt have been computed, that one.  `started` are the groups whose first token this
    step samples.
    """

    grants: list[Grant]
    prefills: list[Prefill] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    rows: IntArray = field(default_factory=lambda: NO_ROWS)
    started: list[Group] = field(default_factory=list)
    steps: int = 1
    draft_steps: int = 0  # of a draft model, one after the other, before this step
    preempted: list[Group] = field(default_factory=list)
    before: Grant = EMPTY_GRANT
    beside: Grant = EMPTY_GRANT

    @property
    def preemptions(self) -> int:
        return len(self.preempted)

    @property
    def computed_groups(self) -> list[Group]:
        """Groups of which the step computes more than the token that they decode."""
        return list(dict.fromkeys(work.group for work in (*self.prefills, *self.chunks)))

    @property
    def blocking_grants(self) -> list[Grant]:
        """What is done before the step computes, in order."""
        prefills = (prefill.grant for prefill in self.prefills)
        grants = [*self.grants, *prefills, self.before]
        return [grant for grant in grants if grant is not EMPTY_GRANT]

    @property
    def all_grants(self) -> list[Grant]:
        return [*self.blocking_grants, self.beside]

    @property
    def batched_tokens(self) -> int:
        prompts = sum(prefill.computed_tokens for prefill in self.prefills)
        return prompts + sum(chunk.new_tokens for chunk in self.chunks) + len(self.rows)

    @property
    def hit_tokens(self) -> int:
        prompts = sum(prefill.grant.cached_tokens for prefill in self.prefills)
        return prompts + sum(chunk.hit_tokens for chunk in self.chunks)
