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
    `parents[row, t]` is the row that row continues at beam step t.
    """

    def __init__(self, max_rows: int, max_len: int, beams: bool) -> None:
        self.groups: dict[int, Group] = {}
        self._table = np.zeros((6, max_rows), dtype=np.int64)
        self._let(0)
        self.parents = np.zeros((max_rows, max_len) if beams else (0, 0), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.groups)

    def _let(self, sequences: int) -> None:
        """Let the columns be the first entries of the table's rows."""
        columns = self._table[:, :sequences]
        self.rows, self.finals, self.outputs, self.left, self.owner, unforked = columns
        self.unforked = unforked != 0

    def _replace(self, columns: IntArray) -> None:
        """Let these be the columns; who still has the old ones keeps them as they were."""
        self._table = np.zeros_like(self._table)
        self._table[:, : columns.shape[1]] = columns
        self._let(columns.shape[1])

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
        self._replace(columns)
        group.forked = True

    def remove(self, groups: list[Group]) -> None:
        """Take groups out; their `generated` is brought up to date."""
        indices = [group.index for group in groups]
        gone = self.owner == indices[0] if len(indices) == 1 else np.isin(self.owner, indices)
        left = dict(zip(self.owner[gone].tolist(), self.left[gone].tolist(), strict=True))
        for group in groups:
            group.generated = group.output_tokens - left[group.index]
            del self.groups[group.index]
        self._replace(self._table[:, : len(gone)][:, ~gone])

    @property
    def lengths(self) -> IntArray:
        """Slots each sequence fills before the next step: it has yet to feed its last token."""
        return self.finals - self.left

    def latest(self) -> Group:
        return self.groups[next(reversed(self.groups))]

    def sampled(self, at: slice | IntArray, steps: int | IntArray) -> list[Group]:
        """Count `steps` tokens for the sequences at these places; return the groups now done."""
        self.left[at] -= steps
        if self.left.all():
            return []
        return [self.groups[i] for i in dict.fromkeys(self.owner[self.left == 0].tolist())]

    def note_parents(self, group: Group, step: int) -> None:
        """Take over what `group.lineage` now says of one beam step."""
        self.parents[group.rows, step] = group.rows[group.lineage[step]]

    def beam_parents(self) -> IntArray:
        """Return the row that each row continues in the step to come, [sequences]."""
        return self.parents[self.rows, self.outputs - self.left - 1].astype(np.int64)
