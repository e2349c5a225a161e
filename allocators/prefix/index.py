"""The prefix index of a paged allocator: which blocks of tokens are already in memory.

Only full blocks have keys.  A block gets its key as soon as its last slot is granted, so that one
admitted later in the same step may hit it.

    tokens    [ block 0 | block 1 | block 2 | block 3 | bl ]      a sequence of 4.5 blocks
               <---- hit ---------> <- done ->                    hit at admission, keyed since
               <-------------- known ---------------->            blocks whose tokens are known
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from allocators.base import Grant, IntArray, Prompt
from allocators.page_table import NO_PAGES, PageTable
from allocators.prefix.keys import NO_KEYS, BlockKeys, block_keys
from allocators.prefix.pool import BlockPool


@dataclass(slots=True)
class PrefixStats:
    """What the index has done so far.  Admissions count when they are granted."""

    lookups: int = 0  # admissions whose tokens were known
    lookup_tokens: int = 0  # and the tokens they brought
    hit_tokens: int = 0
    keyed_blocks: int = 0  # times that a block got a key
    evictions: int = 0  # times that a cached block lost it to be used for something else
    offloaded_blocks: int = 0  # times that such a block was saved in host memory first
    fetched_blocks: int = 0  # hits on a block in host memory


class PrefixIndex(abc.ABC):
    """Where a paged allocator looks for, and announces, blocks that may be shared."""

    @abc.abstractmethod
    def find(self, prompt: Prompt) -> IntArray:
        """Return the pages of the longest hit, [blocks]; changes nothing.

        It is the leading run of cached blocks that leaves the last token to be computed.
        """

    @abc.abstractmethod
    def hold(self, row: int, found: IntArray) -> None:
        """Let an empty row start with the pages that `find` returned."""

    def behind(self, prompt: Prompt, found: IntArray) -> int:
        """Return how many blocks host memory holds behind those found; changes nothing."""
        return 0

    def claim(self, prompt: Prompt, found: IntArray, blocks: int) -> None:  # noqa: B027
        """Keep the `blocks` behind those found in host memory until the row has pages for them."""

    def moved(self, grant: Grant) -> Grant:
        """Return the grant of a call with what the call moves to and from host memory."""
        return grant

    @abc.abstractmethod
    def admitted(self, row: int, prompt: Prompt, found: IntArray, alone: bool) -> None:
        """Key the full blocks of a row that now holds its prompt.

        `alone`: no other row is of its group, so `prompt.token_ids` tell its later tokens too.
        """

    @abc.abstractmethod
    def grown(self, rows: IntArray, before: IntArray, after: IntArray) -> None:
        """Key the blocks that rows have filled, which were `before` tokens long, [rows]."""

    @abc.abstractmethod
    def diverged(self, rows: IntArray) -> None:
        """Note that nothing is known of the tokens to come in these rows."""

    @abc.abstractmethod
    def released(self, rows: IntArray) -> None:
        """Note that these rows have ended."""

    @abc.abstractmethod
    def truncated(self, row: int, length: int) -> None:
        """Note that a row is cut to `length` tokens; its pages are as yet in place."""

    @abc.abstractmethod
    def cached_before(self, to_come: IntArray) -> IntArray:
        """Return the cached pages before the last `to_come[i]` pages were taken, [steps]."""

    @abc.abstractmethod
    def stats(self) -> PrefixStats:
        """Return the counts so far."""

    @abc.abstractmethod
    def check(self, lengths: IntArray) -> None:
        """Assert that index, pool and rows of these lengths agree, [rows]; O(state)."""


class NullIndex(PrefixIndex):
    """No prefix caching: nothing is ever found, nothing is remembered."""

    def find(self, prompt: Prompt) -> IntArray:
        return NO_PAGES

    def hold(self, row: int, found: IntArray) -> None:
        pass

    def admitted(self, row: int, prompt: Prompt, found: IntArray, alone: bool) -> None:
        pass

    def grown(self, rows: IntArray, before: IntArray, after: IntArray) -> None:
        pass

    def diverged(self, rows: IntArray) -> None:
        pass

    def released(self, rows: IntArray) -> None:
        pass

    def truncated(self, row: int, length: int) -> None:
        pass

    def cached_before(self, to_come: IntArray) -> IntArray:
        return np.zeros_like(to_come)

    def stats(self) -> PrefixStats:
        return PrefixStats()

    def check(self, lengths: IntArray) -> None:
        pass


class KeyedIndex(PrefixIndex):
    """What `hash` and `radix` share: a page for each key, and how far each row is keyed.

    A subclass says what it means to key a run of blocks, and what becomes of evicted pages.
    """

    def __init__(self, pages: PageTable, pool: BlockPool) -> None:
        self._pages, self._pool = pages, pool
        pages.free = pool
        pool.on_evict = self._evicted
        rows = len(pages.count)
        self._page_of: dict[int, int] = {}
        self._key = [0] * pages.num_pages  # of each keyed page
        self._second = np.zeros(pages.num_pages, dtype=np.uint64)
        self._keys: list[BlockKeys] = [NO_KEYS] * rows
        self._known: IntArray = np.zeros(rows, dtype=np.int64)
        self._done: IntArray = np.zeros(rows, dtype=np.int64)
        self._stats = PrefixStats()
        self._last: tuple[IntArray | None, BlockKeys] = (None, NO_KEYS)

    # -- admission ---------------------------------------------------------------------------
    def find(self, prompt: Prompt) -> IntArray:
        keys = self._prompt_keys(prompt)
        found: list[int] = []
        page_of = self._page_of
        for key in keys.first[: (prompt.tokens - 1) // self._pages.page_tokens]:
            page = page_of.get(key)
            if page is None:
                break
            found.append(page)
        pages = np.array(found, dtype=np.int64)
        differs = np.flatnonzero(self._second[pages] != keys.second[: len(pages)])
        return pages[: differs[0]] if len(differs) else pages

    def hold(self, row: int, found: IntArray) -> None:
        n = len(found)
        if not n:
            return
        pages = self._pages
        self._pool.hit(found)
        self._pool.remove(found[pages.ref[found] == 0])
        pages.ref[found] += 1
        pages.table[row, :n] = found
        pages.count[row] = n

    def admitted(self, row: int, prompt: Prompt, found: IntArray, alone: bool) -> None:
        t = self._pages.page_tokens
        keys = self._prompt_keys(prompt)
        full = min(prompt.tokens // t, len(keys))
        self._keys[row] = keys
        self._known[row] = len(keys) if alone else full
        self._done[row] = full
        if prompt.token_ids is not None:
            self._stats.lookups += 1
            self._stats.lookup_tokens += max(prompt.tokens, prompt.whole_tokens)
            self._stats.hit_tokens += len(found) * t
        if full > len(found):
            # Deepest first, so that policies which go by age evict the deepest first.
            self._insert(row, len(found), full, deepest_first=True)

    def _prompt_keys(self, prompt: Prompt) -> BlockKeys:
        """Return the keys of all blocks whose tokens are known.

        A request is often looked up again before it is granted, so the last answer is kept.
        """
        if prompt.token_ids is None:
            return NO_KEYS
        if self._last[0] is not prompt.token_ids:
            keys = block_keys(prompt.token_ids, self._pages.page_tokens)
            self._last = (prompt.token_ids, keys)
        return self._last[1]

    # -- growth ------------------------------------------------------------------------------
    def grown(self, rows: IntArray, before: IntArray, after: IntArray) -> None:
        t = self._pages.page_tokens
        done, full = self._done[rows], np.minimum(after // t, self._known[rows])
        at = np.flatnonzero(full > done)
        if not len(at):
            return
        self._done[rows[at]] = full[at]
        counts = full[at] - done[at]
        owner = np.repeat(at, counts)
        block = done[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        # In the order in which growth by one slot a step would have filled them.
        order = np.argsort((block + 1) * t - before[owner], kind="stable")
        self._insert_each(rows[owner[order]], block[order])

    def diverged(self, rows: IntArray) -> None:
        self._known[rows] = self._done[rows] = 0
        for row in rows.tolist():
            self._keys[row] = NO_KEYS

    def released(self, rows: IntArray) -> None:
        self.diverged(rows)

    def truncated(self, row: int, length: int) -> None:
        full = length // self._pages.page_tokens
        self._known[row] = min(int(self._known[row]), full)
        self._done[row] = min(int(self._done[row]), full)
        pages = self._pages.table[row, full : int(self._pages.count[row])]
        # What others hold in full they may go on sharing.  But the page in which this row now
        # ends will be written by it, in place if the others leave first.
        own = self._pages.ref[pages] == 1
        if length % self._pages.page_tokens:
            own[:1] = True
        lost = pages[own & self._pool.keyed[pages]]
        if len(lost):
            self._pool.unkey(lost)
            self._evicted(lost.tolist())

    # -- index -------------------------------------------------------------------------------
    @abc.abstractmethod
    def _insert(self, row: int, start: int, stop: int, deepest_first: bool) -> None:
        """Key the blocks `start`..`stop` - 1 of a row."""

    def _insert_each(self, rows: IntArray, blocks: IntArray) -> None:
        """Key block `blocks[i]` of row `rows[i]`, one after the other."""
        for row, block in zip(rows.tolist(), blocks.tolist(), strict=True):
            self._insert(row, block, block + 1, deepest_first=False)

    @abc.abstractmethod
    def _evicted(self, pages: list[int]) -> None:
        """Forget pages that have lost their keys."""

    def _note(self, pages: list[int], keys: list[int], deepest_first: bool) -> None:
        """Tell the pool of keyed pages, given shallow first."""
        self._stats.keyed_blocks += len(pages)
        if deepest_first:
            pages, keys = pages[::-1], keys[::-1]
        self._pool.inserted(pages, keys)

    # -- views -------------------------------------------------------------------------------
    def cached_before(self, to_come: IntArray) -> IntArray:
        return self._pool.cached_before(to_come)

    def stats(self) -> PrefixStats:
        self._stats.evictions = self._pool.evictions
        return self._stats

    def check(self, lengths: IntArray) -> None:
        pages, pool = self._pages, self._pool
        cached = pool.keyed & (pages.ref == 0)
        assert int(cached.sum()) == pool.cached, "cached pages are miscounted"
        mapped = np.array(list(self._page_of.values()), dtype=np.int64)
        assert pool.keyed[mapped].all(), "the index names a page without a key"
        for key, page in self._page_of.items():
            assert self._key[page] == key, "a page stands under a key that is not its own"
        t = pages.page_tokens
        partial = np.flatnonzero(lengths % t)
        last = pages.table[partial, lengths[partial] // t]
        assert not pool.keyed[last].any(), "a page that is yet to be filled has a key"
        assert (self._done <= self._known).all(), "a row is keyed further than it is known"
        assert (self._done * t <= lengths).all(), "a row is keyed further than it is long"
        for row in np.flatnonzero(self._done).tolist():
            done = int(self._done[row])
            keys = self._keys[row].first[:done]
            for key, page in zip(keys, pages.table[row, :done].tolist(), strict=True):
                assert not pool.keyed[page] or self._key[page] == key, "a key of other tokens"
