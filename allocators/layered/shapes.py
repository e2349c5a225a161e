"""What a page table of some layer groups looks like: how long its rows are, and what falls behind.

sliding, window 6, pages of 4     column  0     1     2     3
the token at position 11 reads            .    ..xx  xxxx
                                         given
what it reads begins at slot 6, so column 0 lies behind: its page is given back, -1 from then on
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from allocators.geometry import Geometry
from allocators.layers import TOKEN_KINDS, WINDOW_KINDS, IntArray


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
    """All tables of a policy, as columns over which one row or many are asked at once."""

    def __init__(self, tables: list[TableShape], geometry: Geometry) -> None:
        self.tables = tables
        self.page_tokens: IntArray = _column([table.page_tokens for table in tables])
        self.grows = _column([table.grows for table in tables]).astype(bool)
        self.before = _column([table.before for table in tables])
        #: slots that a kind which does not grow has from its first token on
        self.fixed = _column([0 if t.grows else t.encoder_tokens or 1 for t in tables])
        self.dropping: IntArray = np.flatnonzero([table.drops for table in tables])
        dropping = [tables[i] for i in self.dropping]
        self._window = _column([table.window for table in dropping])
        self._slides = _column([table.kind == "sliding" for table in dropping]).astype(bool)
        self._all_slide = bool(self._slides.all())
        self._drop_tokens = _column([table.page_tokens for table in dropping])
        #: whether each token of a sequence is written over the last
        self.rewritten = _column([table.kind == "state" for table in tables]).astype(bool)
        self.cap: IntArray = np.array([table.most_at_once(geometry) for table in tables])
        self.width: IntArray = np.array([table.width(geometry.max_len) for table in tables])
        self._plain = bool(self.grows.all()) and not self.before.any()

    def __len__(self) -> int:
        return len(self.tables)

    def columns(self, lengths: IntArray) -> IntArray:
        """Return how many columns rows of these lengths have, [tables, rows]."""
        return (self.slots(lengths) + (self.page_tokens - 1)) // self.page_tokens

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
        return self.first_read(positions) // self._drop_tokens

    def first_read(self, positions: IntArray) -> IntArray:
        """Return the first slot that a token at each position reads, likewise."""
        sliding = np.maximum(positions - (self._window - 1), 0)
        if self._all_slide:
            return sliding
        chunked = positions // self._window * self._window
        return np.where(self._slides, sliding, chunked)

    def columns_behind(self, position: int) -> IntArray:
        """Return the same of one position and all tables, [tables]."""
        columns = np.zeros(len(self.tables), dtype=np.int64)
        columns[self.dropping] = self.behind(np.array([position]))[:, 0]
        return columns

    def until_behind(self, lengths: IntArray, gone: IntArray) -> int:
        """Return how many tokens any of these rows may still take before a page falls behind.

        `gone` [dropping, rows] columns were given back already.
        """
        slot, window = (gone + 1) * self._drop_tokens, self._window
        due = np.where(self._slides, slot + window - 1, -(-slot // window) * window)
        return max(int((due - lengths).min(initial=np.iinfo(np.int64).max)), 0)


def _column(values: list[int]) -> IntArray:
    return np.array(values, dtype=np.int64)[:, None]
