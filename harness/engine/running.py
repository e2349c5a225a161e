"""The running batch as columns, an entry for each sequence, in the order of admission."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from harness.engine.group import NO_ROWS, Group


class Running:
    """Groups that hold memory and decode.

    Columns, [sequences]: `rows`, `finals` (lengths in slots at their end), `outputs` and `left`
    (tokens to sample, and those still to come) and `owner` (index of the group); `tokens_s` (when
    its last token was sampled) and `longest_s` (its longest gap between two), NaN before.  A group
    that is not forked yet has one entry, which is marked in `unforked`.
    `gaps_s` are, of those that the last step gave a token, the seconds since the one before, NaN
    for a first.  `parents[row, t]` is the row that row continues at beam step t.
    """

    def __init__(self, max_rows: int, max_len: int, beams: bool) -> None:
        self.groups: dict[int, Group] = {}
        self.rows = self.finals = self.outputs = self.left = self.owner = NO_ROWS
        self.unforked = np.empty(0, dtype=bool)
        self.tokens_s = self.longest_s = self.gaps_s = np.empty(0)
        self.parents = np.zeros((max_rows, max_len) if beams else (0, 0), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.groups)

    def add(self, group: Group) -> None:
        rows = group.held_rows
        n = len(rows)
        self.groups[group.index] = group
        self.rows = np.concatenate([self.rows, rows])
        self.finals = np.concatenate([self.finals, np.full(n, group.final_slots)])
        self.outputs = np.concatenate([self.outputs, np.full(n, group.output_tokens)])
        left = group.output_tokens - group.generated
        self.left = np.concatenate([self.left, np.full(n, left)])
        self.owner = np.concatenate([self.owner, np.full(n, group.index)])
        self.unforked = np.concatenate([self.unforked, np.full(n, not group.forked)])
        self.tokens_s = np.concatenate([self.tokens_s, np.full(n, group.token_s)])
        self.longest_s = np.concatenate([self.longest_s, np.full(n, group.itl_max_s)])
        if group.lineage is not None:
            self.parents[group.rows, : len(group.lineage)] = group.rows[group.lineage].T
            if group.reassigned_step == group.generated - 1 >= 0:
                # What was saved had gone on from its parents already: not a second time.
                self.parents[group.rows, group.reassigned_step] = group.rows

    def fork(self, group: Group, at: int) -> None:
        """Let the sequence at place `at` become all those of its group, in its place."""
        counts = np.ones(len(self.rows), dtype=np.int64)
        counts[at] = group.sequences
        self.rows, self.finals = np.repeat(self.rows, counts), np.repeat(self.finals, counts)
        self.outputs, self.left = np.repeat(self.outputs, counts), np.repeat(self.left, counts)
        self.owner, self.unforked = np.repeat(self.owner, counts), np.repeat(self.unforked, counts)
        self.tokens_s = np.repeat(self.tokens_s, counts)
        self.longest_s = np.repeat(self.longest_s, counts)
        self.rows[at : at + group.sequences] = group.rows
        self.unforked[at : at + group.sequences] = False
        group.forked = True

    def remove(self, group: Group) -> None:
        """Take a group out; what it says of its tokens is brought up to date."""
        del self.groups[group.index]
        keep = self.owner != group.index
        first = int(keep.argmin())
        group.generated = group.output_tokens - int(self.left[first])
        group.token_s, group.itl_max_s = float(self.tokens_s[first]), float(self.longest_s[first])
        self.tokens_s, self.longest_s = self.tokens_s[keep], self.longest_s[keep]
        self.rows, self.finals = self.rows[keep], self.finals[keep]
        self.outputs, self.left = self.outputs[keep], self.left[keep]
        self.owner, self.unforked = self.owner[keep], self.unforked[keep]

    @property
    def lengths(self) -> IntArray:
        """Slots each sequence fills before the next step: it has yet to feed its last token."""
        return self.finals - self.left

    def latest(self) -> Group:
        return self.groups[next(reversed(self.groups))]

    def sampled(
        self, at: slice | IntArray, tokens: int | IntArray, ends_s: np.ndarray
    ) -> list[Group]:
        """Count tokens for the sequences at these places; return the groups now done.

        ends_s: [steps] when the steps end, in each of which these sequences sample.
        """
        self.gaps_s = ends_s[0] - self.tokens_s[at]
        longest_s = self.gaps_s
        if len(ends_s) > 1:
            longest_s = np.fmax(longest_s, (ends_s[1:] - ends_s[:-1]).max())
        self.longest_s[at] = np.fmax(self.longest_s[at], longest_s)
        self.tokens_s[at] = ends_s[-1]
        self.left = self.left.copy()
        self.left[at] -= tokens
        if self.left.all():
            return []
        return [self.groups[i] for i in dict.fromkeys(self.owner[self.left == 0].tolist())]

    def note_parents(self, group: Group, step: int) -> None:
        """Take over what `group.lineage` now says of one beam step."""
        self.parents[group.rows, step] = group.rows[group.lineage[step]]

    def beam_parents(self) -> IntArray:
        """Return the row that each row continues in the step to come, [sequences]."""
        return self.parents[self.rows, self.outputs - self.left - 1].astype(np.int64)
