"""The running batch as columns, an entry for each sequence, in the order of admission."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from harness.engine.group import Group


class Running:
    """Groups that hold memory and decode.

    Columns, [sequences]: `rows`, `finals` (lengths in slots at their end), `outputs` and `left`
    (tokens to sample, and those still to come) and `owner` (index of the group).  A group that is
    not forked yet has one entry, which is marked in `unforked`.
    `gaps_s` are, of the sequences that the last step gave a token, the seconds since the one
    before, NaN for a first.  `parents[row, t]` is the row that row continues at beam step t.
    """

    def __init__(self, max_rows: int, max_len: int, beams: bool) -> None:
        self.groups: dict[int, Group] = {}
        self._table = np.zeros((6, max_rows), dtype=np.int64)
        # When the last token of a sequence was sampled, and its longest gap; NaN before.
        self._times_s = np.full((2, max_rows), np.nan)
        self._let(0)
        self.gaps_s = np.empty(0)
        self.parents = np.zeros((max_rows, max_len) if beams else (0, 0), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.groups)

    def _let(self, sequences: int) -> None:
        """Let the columns be so many first entries of the tables' rows."""
        columns = self._table[:, :sequences]
        self.rows, self.finals, self.outputs, self.left, self.owner, unforked = columns
        self.unforked = unforked != 0
        self._tokens_s, self._longest_s = self._times_s[:, :sequences]

    def _replace(self, columns: IntArray, times_s: np.ndarray) -> None:
        """Let these be the columns; who still has the old ones keeps them as they were."""
        n = columns.shape[1]
        self._table, self._times_s = np.empty_like(self._table), np.empty_like(self._times_s)
        self._table[:, :n], self._times_s[:, :n] = columns, times_s
        self._let(n)

    def add(self, group: Group) -> None:
        rows, n = group.held_rows, len(self.rows)
        stop = n + len(rows)
        self.groups[group.index] = group
        self._table[0, n:stop] = rows
        self._table[1, n:stop] = group.final_slots
        self._table[2, n:stop] = group.output_tokens
        self._table[3, n:stop] = group.output_tokens - group.generated
        self._table[4, n:stop] = group.index
        self._table[5, n:stop] = not group.forked
        self._times_s[0, n:stop], self._times_s[1, n:stop] = group.token_s, group.itl_max_s
        self._let(stop)
        if group.lineage is not None:
            self.parents[group.rows, : len(group.lineage)] = group.rows[group.lineage].T
            if group.reassigned_step == group.generated - 1 >= 0:
                # What was saved had gone on from its parents already: not a second time.
                self.parents[group.rows, group.reassigned_step] = group.rows

    def fork(self, group: Group, at: int) -> None:
        """Let the sequence at place `at` become all those of its group, in its place."""
        n = len(self.rows)
        counts = np.ones(n, dtype=np.int64)
        counts[at] = group.sequences
        columns = np.repeat(self._table[:, :n], counts, axis=1)
        columns[0, at : at + group.sequences] = group.rows
        columns[5, at : at + group.sequences] = False
        self._replace(columns, np.repeat(self._times_s[:, :n], counts, axis=1))
        group.forked = True

    def remove(self, groups: list[Group]) -> None:
        """Take groups out; what they say of their tokens is brought up to date."""
        n, indices = len(self.rows), [group.index for group in groups]
        gone = self.owner == indices[0] if len(indices) == 1 else np.isin(self.owner, indices)
        places = np.flatnonzero(gone)[::-1]  # so that the first of a group's is what stays here
        first = dict(zip(self.owner[places].tolist(), places.tolist(), strict=True))
        for group in groups:
            at = first[group.index]
            group.generated = group.output_tokens - int(self.left[at])
            group.token_s, group.itl_max_s = self._times_s[:, at].tolist()
            del self.groups[group.index]
        self._replace(self._table[:, :n][:, ~gone], self._times_s[:, :n][:, ~gone])

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
            self.left -= tokens
            self.gaps_s = first_s - self._tokens_s
            np.fmax(self._longest_s, self.gaps_s, out=self._longest_s)
            self._tokens_s.fill(last_s)
        else:
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

    def note_parents(self, group: Group, step: int) -> None:
        """Take over what `group.lineage` now says of one beam step."""
        self.parents[group.rows, step] = group.rows[group.lineage[step]]

    def beam_parents(self) -> IntArray:
        """Return the row that each row continues in the step to come, [sequences]."""
        return self.parents[self.rows, self.outputs - self.left - 1].astype(np.int64)
