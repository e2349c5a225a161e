"""The running batch as columns, an entry for each sequence, in the order of admission."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from harness.engine.group import NO_ROWS, Group


class Running:
    """Groups that hold memory and decode.

    Columns, [sequences]: `rows`, `finals` (lengths in slots at their end), `outputs` and `left`
    (tokens to sample, and those still to come) and `owner` (index of the group).  A group that is
    not forked yet has one entry, which is marked in `unforked`.
    `gaps_s` are, of the sequences that the last step gave a token, the seconds since the one before,
    NaN for a first.  `parents[row, t]` is the row that row continues at beam step t.
    """

    def __init__(self, max_rows: int, max_len: int, beams: bool) -> None:
        self.groups: dict[int, Group] = {}
        self.rows = self.finals = self.outputs = self.left = self.owner = NO_ROWS
        self.unforked = np.empty(0, dtype=bool)
        # When the last token of a sequence was sampled, and its longest gap between two; NaN before.
        # Columns as well, in one array with room for all that is moved in place.
        self._times_s = np.full((2, max_rows), np.nan)
        self._tokens_s, self._longest_s = self._times_s
        self.gaps_s = np.empty(0)
        self.parents = np.zeros((max_rows, max_len) if beams else (0, 0), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.groups)

    def add(self, group: Group) -> None:
        rows = group.held_rows
        n, there = len(rows), len(self.rows)
        self.groups[group.index] = group
        self.rows = np.concatenate([self.rows, rows])
        self.finals = np.concatenate([self.finals, np.full(n, group.final_slots)])
        self.outputs = np.concatenate([self.outputs, np.full(n, group.output_tokens)])
        left = group.output_tokens - group.generated
        self.left = np.concatenate([self.left, np.full(n, left)])
        self.owner = np.concatenate([self.owner, np.full(n, group.index)])
        self.unforked = np.concatenate([self.unforked, np.full(n, not group.forked)])
        self._times_s[0, there : there + n] = group.token_s
        self._times_s[1, there : there + n] = group.itl_max_s
        if group.lineage is not None:
            self.parents[group.rows, : len(group.lineage)] = group.rows[group.lineage].T
            if group.reassigned_step == group.generated - 1 >= 0:
                # What was saved had gone on from its parents already: not a second time.
                self.parents[group.rows, group.reassigned_step] = group.rows

    def fork(self, group: Group, at: int) -> None:
        """Let the sequence at place `at` become all those of its group, in its place."""
        self._move_times(at + 1, at + group.sequences)
        self._times_s[:, at : at + group.sequences] = self._times_s[:, at : at + 1]
        counts = np.ones(len(self.rows), dtype=np.int64)
        counts[at] = group.sequences
        self.rows, self.finals = np.repeat(self.rows, counts), np.repeat(self.finals, counts)
        self.outputs, self.left = np.repeat(self.outputs, counts), np.repeat(self.left, counts)
        self.owner, self.unforked = np.repeat(self.owner, counts), np.repeat(self.unforked, counts)
        self.rows[at : at + group.sequences] = group.rows
        self.unforked[at : at + group.sequences] = False
        group.forked = True

    def remove(self, group: Group) -> None:
        """Take a group out; what it says of its tokens is brought up to date."""
        del self.groups[group.index]
        keep = self.owner != group.index
        first = int(keep.argmin())
        group.generated = group.output_tokens - int(self.left[first])
        group.token_s, group.itl_max_s = self._times_s[:, first].tolist()
        self._move_times(first + len(group.held_rows), first)
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
        n, first_s, last_s = len(self.rows), ends_s[0], ends_s[-1]
        if isinstance(at, slice) or len(at) == n:
            at = slice(n)  # all in order, so that nothing has to be gathered
            self.left = self.left - tokens
            tokens_s, longest_s = self._tokens_s[:n], self._longest_s[:n]
            self.gaps_s = first_s - tokens_s
            np.fmax(longest_s, self.gaps_s, out=longest_s)
            tokens_s.fill(last_s)
        else:
            self.left = self.left.copy()
            self.left[at] -= tokens
            self.gaps_s = first_s - self._tokens_s[at]
            self._longest_s[at] = np.fmax(self._longest_s[at], self.gaps_s)
            self._tokens_s[at] = last_s
        if len(ends_s) > 1:
            self._longest_s[at] = np.fmax(
                self._longest_s[at], np.maximum.reduce(ends_s[1:] - ends_s[:-1])
            )
        if np.count_nonzero(self.left) == n:
            return []
        return [self.groups[i] for i in dict.fromkeys(self.owner[self.left == 0].tolist())]

    def _move_times(self, start: int, to: int) -> None:
        """Move the times from place `start` on to where place `to` is or will be."""
        stop = len(self.rows)
        self._times_s[:, to : to + stop - start] = self._times_s[:, start:stop].copy()

    def note_parents(self, group: Group, step: int) -> None:
        """Take over what `group.lineage` now says of one beam step."""
        self.parents[group.rows, step] = group.rows[group.lineage[step]]

    def beam_parents(self) -> IntArray:
        """Return the row that each row continues in the step to come, [sequences]."""
        return self.parents[self.rows, self.outputs - self.left - 1].astype(np.int64)
