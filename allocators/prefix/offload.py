"""A second tier for the prefix cache: blocks that are evicted go to host memory first.

    device    [ block 0 | block 1 ] <----- found, held as they are
    host                          [ block 2 | block 3 ] <----- fetched into fresh pages
    computed                                          [ block 4 | ...

A block is in host memory from the eviction of its last copy until it is fetched, or dropped as the
least recently saved of a full tier.  Swaps out come before swaps in within a grant, so the host
pages of a hit are taken out of the tier before anything is evicted for it, and are given back only
once the grant is made.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.base import NO_SWAPS, Grant, IntArray, Prompt
from allocators.host import HostTier
from allocators.page_table import PageTable
from allocators.prefix.hash_index import HashIndex
from allocators.prefix.pool import BlockPool


class OffloadIndex(HashIndex):
    """A hash index that saves in `tier` the blocks whose last copy is evicted."""

    def __init__(self, pages: PageTable, pool: BlockPool, tier: HostTier) -> None:
        super().__init__(pages, pool)
        # To take a cached page is an operation on memory.
        pool.quiet_evictions = False
        # A key that is lost otherwise, by a roll-back, names what was never written.
        pool.on_evict = self._save
        self._tier = tier
        self._out: dict[int, int] = {}  # device page to be saved in each host page
        self._claimed: list[int] = []  # host pages of the hit, in order
        self._in: list[int] = []  # and the device pages that they go to

    # -- admission ---------------------------------------------------------------------------
    def behind(self, prompt: Prompt, found: IntArray) -> int:
        keys = self._keys_from(prompt, len(found))
        return next((n for n, key in enumerate(keys) if key not in self._tier), len(keys))

    def claim(self, prompt: Prompt, found: IntArray, blocks: int) -> None:
        keys = self._keys_from(prompt, len(found))[:blocks]
        self._claimed = [self._tier.claim(key) for key in keys]

    def admitted(self, row: int, prompt: Prompt, found: IntArray, alone: bool) -> None:
        super().admitted(row, prompt, found, alone)
        fetched = len(self._claimed)
        self._stats.hit_tokens += fetched * self._pages.page_tokens
        self._stats.fetched_blocks += fetched
        self._in = self._pages.table[row, len(found) : len(found) + fetched].tolist()

    def _keys_from(self, prompt: Prompt, start: int) -> list[tuple[int, int]]:
        """Return the keys of the blocks that may be hit, from block `start` on."""
        keys = self._prompt_keys(prompt)
        stop = (prompt.tokens - 1) // self._pages.page_tokens
        return list(zip(keys.first[start:stop], keys.second[start:stop].tolist(), strict=True))

    # -- moves -------------------------------------------------------------------------------
    def _save(self, pages: list[int]) -> None:
        for page in pages:
            first, second = self._key[page], int(self._second[page])
            self._evicted([page])
            if first in self._page_of:
                continue
            host = self._tier.save((first, second))
            if host is not None:
                # Where the tier is so small that it drops a block of this very call again, the
                # later one replaces it here too.
                self._out[host] = page

    def moved(self, grant: Grant) -> Grant:
        if not self._out and not self._claimed:
            return grant
        out = self._rows(list(self._out.values()), list(self._out))
        come = self._rows(self._in, self._claimed)
        self._tier.give(np.array(self._claimed, dtype=np.int64))
        self._stats.offloaded_blocks += len(out)
        self._out, self._claimed, self._in = {}, [], []
        return replace(grant, swaps_out=out, swaps_in=np.concatenate([grant.swaps_in, come]))

    def _rows(self, device: list[int], host: list[int]) -> IntArray:
        if not device:
            return NO_SWAPS
        t = self._pages.page_tokens
        return np.array([[page * t, to * t, t] for page, to in zip(device, host, strict=True)])

    # -- checks ------------------------------------------------------------------------------
    def check(self, lengths: IntArray) -> None:
        super().check(lengths)
        assert not self._out, "a block is on its way to host memory in no grant"
        assert not self._claimed, "a block is on its way from host memory in no grant"
