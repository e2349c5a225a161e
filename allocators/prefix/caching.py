"""What allocators with a prefix index have in common: what they say of it."""

from __future__ import annotations

from typing import Protocol

from allocators.base import Allocator, Prompt
from allocators.prefix.index import PrefixIndex, PrefixStats


class Index(Protocol):
    """A prefix index of any kind."""

    def stats(self) -> PrefixStats: ...


class CountsHits(Allocator):
    """A policy that looks prompts up in `index`, which its construction sets."""

    index: Index

    @property
    def prefix_stats(self) -> PrefixStats:
        """Lookups, hits and evictions so far; all zero without an index."""
        return self.index.stats()

    @property
    def evictions(self) -> int:
        """Pages whose cached prefix was given up for another use, so far."""
        return self.index.stats().evictions


class PrefixCaching(CountsHits):
    """One whose index is asked for pages of a uniform model."""

    index: PrefixIndex

    def lookup(self, prompt: Prompt) -> int:
        found = self.index.find(prompt)
        return (len(found) + self.index.behind(prompt, found)) * self.geometry.page_tokens
