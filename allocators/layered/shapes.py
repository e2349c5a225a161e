"""What a page table of some layer groups looks like: how long its rows are, and what falls behind.

sliding, window 6, pages of 4     column  0     1     2     3
the token at position 11 reads            .    ..xx  xxxx
                                         given
what it reads begins at slot 6, so column 0 lies behind: its page is given back, -1 from then on
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from allocators.geometry import Geometry
from allocators.layers import TOKEN_KINDS, WINDOW_KINDS, IntArray, LayerGroup

#: a length that no row has
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class TableShape:
    """One table: its pages hold `page_tokens` slots of each of its layer groups.

    `members` are indices into the policy's `geometry.layer_groups`; `kind` and `window` say what
    the table keeps, which may be more than each of them needs.  The first `before` slots of a
    sequence, whole pages, are an encoder's.
    """

    members: tuple[int, ...]
    kind: str
    page_tokens: int
    page_bytes: int
    window: int = 0
    encoder_tokens: int = 0
    before: int = 0
    pool: int = 0

    @property
    def drops(self) -> bool:
        """Whether pages fall behind what later tokens read."""
        return self.kind in WINDOW_KINDS

    @property
    def grows(self) -> bool:
        return self.kind in TOKEN_KINDS

    @property
    def rule(self) -> tuple[str, int, int, int, int]:
        """Return what tables have in common whose rows are equally long and drop the same."""
        return self.kind, self.page_tokens, self.window, self.encoder_tokens, self.before

    def first_read(self, positions: IntArray) -> IntArray:
        """Return the first slot that a token at each position reads, of a kind with a window."""
        if self.kind == "sliding":
            return np.maximum(positions - (self.window - 1), 0)
        return positions // self.window * self.window

    def behind(self, positions: IntArray) -> IntArray:
        """Return how many columns lie wholly behind that."""
        return self.first_read(positions) // self.page_tokens

    def leaves_at(self, columns: IntArray) -> IntArray:
        """Return the first position whose token leaves more than so many columns behind."""
        slot = (columns + 1) * self.page_tokens
        if self.kind == "sliding":
            return slot + (self.window - 1)
        return -(-slot // self.window) * self.window

    def width(self, max_len: int) -> int:
        """Return how many columns a row of the longest sequence has."""
        slots = self.before + max_len if self.grows else self.encoder_tokens or 1
        return -(-slots // self.page_tokens)

    def most_at_once(self, geometry: Geometry) -> int:
        """Return the most pages that a sequence holds while it is computed step by step.

        A kind that drops pages holds what its first token of a step reads and the tokens of that
        step, whichever page either begins in; vLLM admits by it.
        """
        width, budget = self.width(geometry.max_len), geometry.step_tokens or geometry.max_len
        if self.kind == "sliding":
            tokens = min(self.window - 1 + budget, geometry.max_len)
            return min(width, -(-tokens // self.page_tokens) + 1)
        if self.kind == "chunked":
            tokens = min(self.window + budget, geometry.max_len)
            return min(width, -(-tokens // self.page_tokens))
        return width


class TableShapes:
    """All tables of a policy, as columns over which one row or many are asked at once.

    What several tables have alike is worked out once for all of them, by numbers: NumPy divides by
    a number twenty times as fast as by a column.
    """

    def __init__(self, tables: list[TableShape], geometry: Geometry) -> None:
        self.tables = tables
        self.page_tokens: IntArray = _column([table.page_tokens for table in tables])
        self.grows = _column([table.grows for table in tables]).astype(bool)
        self.before = _column([table.before for table in tables])
        #: slots that a kind which does not grow has from its first token on
        self.fixed = _column([0 if t.grows else t.encoder_tokens or 1 for t in tables])
        self.dropping: IntArray = np.flatnonzero([table.drops for table in tables])
        #: whether each token of a sequence is written over the last
        self.rewritten = _column([table.kind == "state" for table in tables]).astype(bool)
        self.cap: IntArray = np.array([table.most_at_once(geometry) for table in tables])
        self.width: IntArray = np.array([table.width(geometry.max_len) for table in tables])
        self._plain = bool(self.grows.all()) and not self.before.any()
        fixed = self.fixed[:, 0].tolist()
        dropping = [tables[i] for i in self.dropping]
        self._long = _alike(
            [(t.page_tokens, t.before, n) for t, n in zip(tables, fixed, strict=True)]
        )
        self._drops = [(dropping[int(at[0])], at) for _, at in _alike([t.rule for t in dropping])]
        #: so many steps take no page that they also leave behind, but where a chunk ends
        self.shortest_window = min((table.window for table in dropping), default=NEVER)
        #: what rows of a table have is what they have of all that are like it: one table, and all
        self.alike = [(int(at[0]), at) for _, at in _alike([t.rule for t in tables])]
        #: a table, a layer group in it, and the bytes of a slot of all that are counted like it
        self.counted = _counted(tables, geometry.layer_groups)

    def __len__(self) -> int:
        return len(self.tables)

    def columns(self, lengths: IntArray) -> IntArray:
        """Return how many columns rows of these lengths have, [tables, rows]."""
        columns = np.empty((len(self.tables), len(lengths)), dtype=np.int64)
        for (page_tokens, before, fixed), at in self._long:
            if fixed:
                columns[at] = (lengths > 0) * -(-fixed // page_tokens)
                continue
            of = (lengths + (before + page_tokens - 1)) // page_tokens
            columns[at] = (lengths > 0) * of if before else of
        return columns

    def slots(self, lengths: IntArray) -> IntArray:
        """Return how many slots rows of these lengths have ever been given, [tables, rows]."""
        if self._plain:
            return np.broadcast_to(lengths, (len(self), len(lengths)))
        slots = np.where(self.grows, lengths + self.before, self.fixed)
        return np.where(lengths > 0, slots, 0)

    def entries(self, longest: int | IntArray) -> int | IntArray:
        """Return the columns of all tables together, where the longest row has so many tokens."""
        return self.columns(np.atleast_1d(longest)).sum(axis=0).reshape(np.shape(longest))[()]

    def behind(self, positions: IntArray) -> IntArray:
        """Return how many columns lie wholly behind what a token at each position reads.

        [dropping, rows]: of the tables that drop pages only.
        """
        columns = np.empty((len(self.dropping), len(positions)), dtype=np.int64)
        for table, at in self._drops:
            columns[at] = table.behind(positions)
        return columns

    def first_read(self, positions: IntArray) -> IntArray:
        """Return the first slot that a token at each position reads, likewise."""
        first = np.empty((len(self.dropping), len(positions)), dtype=np.int64)
        for table, at in self._drops:
            first[at] = table.first_read(positions)
        return first

    def columns_behind(self, position: int) -> IntArray:
        """Return the same of one position and all tables, [tables]."""
        columns = np.zeros(len(self.tables), dtype=np.int64)
        columns[self.dropping] = self.behind(np.array([position]))[:, 0]
        return columns

    def leaves_at(self, gone: IntArray) -> IntArray:
        """Return the first position whose token leaves a page behind in any table, [rows].

        `gone` [dropping, rows] columns were given back already.
        """
        positions = np.full(gone.shape[1], NEVER)
        for table, at in self._drops:
            positions = np.minimum(positions, table.leaves_at(gone[at].min(axis=0)))
        return positions

    def left_at(self, tables: IntArray, columns: IntArray) -> IntArray:
        """Return the first position whose token leaves each of these columns behind."""
        positions = np.empty_like(columns)
        for table, at in self._drops:
            here = np.isin(tables, self.dropping[at])
            positions[here] = table.leaves_at(columns[here])
        return positions

    def until_behind(self, lengths: IntArray, gone: IntArray) -> int:
        """Return how many tokens any of these rows may still take before a page falls behind."""
        return max(int((self.leaves_at(gone) - lengths).min(initial=NEVER)), 0)


def _alike(tables: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], IntArray]]:
    """Return what tables may differ in, and the indices of those which have that."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, numbers in enumerate(tables):
        found.setdefault(numbers, []).append(index)
    return [(numbers, np.array(at)) for numbers, at in found.items()]


def _counted(
    tables: list[TableShape], groups: tuple[LayerGroup, ...]
) -> list[tuple[int, LayerGroup, int]]:
    each = [(index, groups[member]) for index, t in enumerate(tables) for member in t.members]
    rules = [(*tables[i].rule, of.kind, of.window, of.encoder_tokens) for i, of in each]
    return [
        (*each[int(at[0])], sum(each[int(i)][1].slot_bytes for i in at)) for _, at in _alike(rules)
    ]


def _column(values: list[int]) -> IntArray:
    return np.array(values, dtype=np.int64)[:, None]
