"""What a policy with several tables asks of a prefix index, and the index that finds nothing."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from allocators.base import Demand, IntArray, Prompt
from allocators.layered.tables import LayerTables
from allocators.page_table import NO_PAGES
from allocators.prefix.index import PrefixStats


@dataclass(frozen=True, slots=True)
class Hit:
    """`tokens` found; `pages` of each table, column by column from `first[table]` on.

    `longest` is how many the layer groups that keep most have.
    """

    tokens: int
    first: IntArray
    pages: list[IntArray]
    longest: int = 0

    def columns(self) -> IntArray:
        """Return how many columns each table starts with, those it lacks included, [tables]."""
        return self.first + np.array([len(pages) for pages in self.pages], dtype=np.int64)


class LayerIndex(abc.ABC):
    """Where a policy looks for pages that may be shared, and announces them."""

    @abc.abstractmethod
    def find(self, prompt: Prompt) -> Hit:
        """Return the longest hit that leaves the last token to be computed; changes nothing."""

    @abc.abstractmethod
    def hold(self, row: int, hit: Hit) -> None:
        """Let an empty row start with a hit."""

    @abc.abstractmethod
    def admitted(self, row: int, prompt: Prompt, demand: Demand, hit: Hit, alone: bool) -> None:
        """Key the full blocks of a row that now holds its prompt.

        `alone`: no other row is of its group, so `prompt.token_ids` tell its later tokens too.
        """

    @abc.abstractmethod
    def grown(self, rows: IntArray, after: IntArray) -> None:
        """Key the blocks that rows have filled, which are `after` tokens long now, [rows]."""

    @abc.abstractmethod
    def diverged(self, rows: IntArray) -> None:
        """Note that nothing is known of the tokens to come in these rows."""

    @abc.abstractmethod
    def truncated(self, row: int, length: int) -> None:
        """Note that a row is cut to `length` tokens; its pages are as yet in place."""

    # vLLM gives back what lies behind a row even if it then refuses to let it grow, and preempts
    # others after that; a refusal of ours leaves no trace.  So that pages are evicted in the same
    # order, what was released since then is given again once the row grows or is released itself.
    def refused(self, row: int) -> None:  # noqa: B027
        """Note that a row was refused growth, in a batch or alone."""

    def is_refused(self, rows: IntArray) -> bool:
        """Say whether the first of these rows is the one that was refused last."""
        return False

    def make_up(self, forget: Callable[[], None]) -> None:
        """Let the row that was refused `forget` what lies behind it, as if it had done so then."""
        forget()

    def planned(self) -> None:  # noqa: B027
        """Forget who was refused: the step is planned."""

    def mixes(self, pages: IntArray) -> bool:
        """Say whether the order of giving these back and taking others matters."""
        return False

    @abc.abstractmethod
    def stats(self) -> PrefixStats:
        """Return the counts so far."""

    @abc.abstractmethod
    def check(self, lengths: IntArray) -> None:
        """Assert that index, pools and rows of these lengths agree; O(state)."""


class NoIndex(LayerIndex):
    """No prefix caching: nothing is ever found, nothing is remembered."""

    def __init__(self, tables: LayerTables) -> None:
        none = [NO_PAGES] * len(tables.shapes)
        self._nothing = Hit(0, np.zeros(len(none), dtype=np.int64), none)

    def find(self, prompt: Prompt) -> Hit:
        return self._nothing

    def hold(self, row: int, hit: Hit) -> None:
        pass

    def admitted(self, row: int, prompt: Prompt, demand: Demand, hit: Hit, alone: bool) -> None:
        pass

    def grown(self, rows: IntArray, after: IntArray) -> None:
        pass

    def diverged(self, rows: IntArray) -> None:
        pass

    def truncated(self, row: int, length: int) -> None:
        pass

    def stats(self) -> PrefixStats:
        return PrefixStats()

    def check(self, lengths: IntArray) -> None:
        pass
