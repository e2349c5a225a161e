"""What a step maps, and what a thread does beside it: by vAttention's code or by its paper.

The thread is asked once a step, when all of that step is mapped: what it maps and unmaps serves the
steps to come.  The sources of every rule stand in docs/virtual.md.
"""

from __future__ import annotations

import abc

import numpy as np

from allocators.base import Grant, IntArray
from allocators.rules import mapping as rules
from allocators.rules.mapping import LOOK_AHEAD_TOKENS, MOST_AHEAD
from allocators.virtual.ranges import Ranges


class Background(abc.ABC):
    """Shared parts.  Without a thread (`threaded` false) nothing is mapped ahead of its step."""

    #: within how many tokens of its end the thread gives a live range another page-group
    reach_tokens = 1

    def __init__(self, ranges: Ranges, deferred: bool, threaded: bool) -> None:
        self.ranges, self.deferred, self.threaded = ranges, deferred, threaded

    @property
    def look_ahead_tokens(self) -> int:
        return self.reach_tokens if self.threaded else 0

    @abc.abstractmethod
    def step(self) -> tuple[list[Grant], list[Grant]]:
        """Map what is promised; return what comes before the step, and what goes on beside it."""

    @abc.abstractmethod
    def is_idle(self) -> bool:
        """Say whether `step` maps what is promised, looks ahead for live ranges and no more."""

    def short(self, tokens: int) -> IntArray:
        """Return the page-groups that live ranges lack to grow by so many tokens, [ranges]."""
        ranges, pages = self.ranges, self.ranges.pages
        width = pages.table.shape[1]
        return rules.short(pages.count, ranges.length, tokens, pages.page_tokens, width)


class CodeBackground(Background):
    """The rules of vAttention's code (do_kvcache_memory_management)."""

    reach_tokens = LOOK_AHEAD_TOKENS

    def step(self) -> tuple[list[Grant], list[Grant]]:
        if self.threaded:
            return self.ranges.settle_all(), self._work()
        return self.ranges.settle_in_order(gives_back=not self.deferred), []

    def _work(self) -> list[Grant]:
        ranges, free = self.ranges, self.ranges.pages.free
        due = int(self.short(1).sum())
        steps = [Grant(unmaps=ranges.reclaim(due))]
        if due > len(free):
            return steps  # it hopes that a request ends
        steps += self._ahead()
        surplus = [] if due or self.deferred else self._surplus().tolist()
        if surplus:
            last = surplus[-1]
            steps.append(Grant(unmaps=ranges.drop(last, int(ranges.pages.count[last]) - 1)))
        return steps

    def _ahead(self) -> list[Grant]:
        """Map for the next token and then for those behind it, until enough is mapped ahead.

        That it is enough is seen behind a range, so the first range of all is always served.  A
        range that has just lost what it had for its next token wants that again, in its turn.
        """
        ranges, steps, ahead = self.ranges, [], 0
        if not self.short(LOOK_AHEAD_TOKENS).any():
            return []
        for tokens in range(1, LOOK_AHEAD_TOKENS + 1):
            lack = self.short(tokens)
            enough = tokens > 1 and ahead >= MOST_AHEAD
            for vrange in [0] if enough else np.flatnonzero(lack).tolist():
                if 0 < lack[vrange] <= len(ranges.pages.free):
                    one = slice(vrange, vrange + 1)
                    steps.append(Grant(maps=ranges.extend(np.array([vrange]), lack[one])))
                ahead += int(lack[vrange])
                if tokens > 1 and ahead >= MOST_AHEAD:
                    return steps
        return steps

    def _surplus(self) -> IntArray:
        """Return the idle ranges that have page-groups, but for the one to be let next."""
        ranges = self.ranges
        idle = np.flatnonzero((ranges.length == 0) & (ranges.pages.count > 0))
        return idle[idle != ranges.next_idle()]

    def is_idle(self) -> bool:
        if self.deferred:
            return True
        return not (len(self._surplus()) if self.threaded else self.ranges.cached)


class PaperBackground(Background):
    """The rules of vAttention's paper (sections 6.1.1 and 6.1.2).

    Page-groups for the next token, one idle range that is kept ready (`eager`), and so many kept
    free (`keep_free`) by taking those of idle ranges; without deferral all of those at once.
    """

    def __init__(
        self, ranges: Ranges, deferred: bool, threaded: bool, eager: bool, keep_free: int
    ) -> None:
        super().__init__(ranges, deferred, threaded)
        self.eager, self.keep_free = eager, keep_free

    def step(self) -> tuple[list[Grant], list[Grant]]:
        before, work = self.ranges.settle_all(), self._work()
        return (before, work) if self.threaded else (before + work, [])

    def _work(self) -> list[Grant]:
        ranges, free = self.ranges, self.ranges.pages.free
        steps = []
        if not self.deferred:
            idle = np.flatnonzero(ranges.length == 0).tolist()
            steps += [Grant(unmaps=ranges.drop(vrange, 0)) for vrange in idle]
        short = self.short(self.look_ahead_tokens)  # 0 where this step has mapped all that it needs
        wanted = max(self.keep_free, int(short.sum()))
        steps.append(Grant(unmaps=ranges.reclaim_idle(wanted)))
        at = np.flatnonzero(short)[: len(free)]
        steps.append(Grant(maps=ranges.extend(at, short[at])))
        ready = ranges.unprepared() if self.eager and len(free) else at[:0]
        steps.append(Grant(maps=ranges.extend(ready, np.ones_like(ready))))
        return steps

    def is_idle(self) -> bool:
        ranges, free = self.ranges, len(self.ranges.pages.free)
        if ranges.cached and (not self.deferred or free < self.keep_free):
            return False
        return not (self.eager and free and len(ranges.unprepared()))
