"""A prefix index over several tables: a hit is what every layer group still holds.

Follows vLLM's hybrid KV cache coordinator (vLLM 0.33.0, `kv_cache_coordinator.py`): tables that
keep the same are looked up together, each kind either takes the length that the others found or
shortens it, and that goes round until none does.

    full          [ hit | hit | hit | hit | hit |     ]    every block from the first on
    sliding       [     |     | hit | hit |     |     ]    the blocks of one window, no others
    chunked       [     |     |     |     | hit |     ]    those of the chunk that goes on
                                     ^ 4 blocks: the longest that all three take

A page has a key of its own table, as soon as its last slot is granted, and keeps it when it falls
behind a window and is given back: until it is used for something else it can be hit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from allocators.base import Demand, IntArray, Prompt
from allocators.layered.index import Hit, LayerIndex
from allocators.layered.shapes import TableShape
from allocators.layered.tables import LayerTables, spread
from allocators.page_table import NO_PAGES
from allocators.prefix.hash_index import take_name
from allocators.prefix.index import PrefixStats
from allocators.prefix.keys import NO_KEYS, BlockKeys, block_keys


class HashLayerIndex(LayerIndex):
    """Keys of full blocks, in a hash table for each page table.

    Two rows that compute the same block at once both keep theirs: a hit takes the page that got the
    key first, and when that is evicted the next one stands in.

    In a layer group with a window only the blocks of the windows that hits end with are of use.
    `retention_tokens` says where hits end: None, everywhere; n, at the multiples of n, and at the
    end of each prompt and where it parts from others that began alike (vLLM's
    `prefix_cache_retention_interval`); 0, at those two alone.
    """

    def __init__(self, tables: LayerTables, retention_tokens: int | None = None) -> None:
        self._tables, self._pools = tables, tables.pools
        tables.pools.on_evict(self._evicted)
        shapes = tables.shapes.tables
        rows, pages = tables.count.shape[1], tables.pools.num_pages
        self._page_of: list[dict[int, int]] = [{} for _ in shapes]
        self._more: list[dict[int, list[int]]] = [{} for _ in shapes]  # further pages, in order
        self._key, self._second = [0] * pages, [0] * pages  # of each keyed page
        self._table_of = [0] * pages
        self._keys: list[dict[int, BlockKeys]] = [{} for _ in range(rows)]
        self._known: IntArray = np.zeros(rows, dtype=np.int64)  # tokens
        self._done: IntArray = np.zeros((len(shapes), rows), dtype=np.int64)  # blocks
        self._stats = PrefixStats()
        self._last: tuple[IntArray | None, dict[int, BlockKeys]] = (None, {})
        # Found last: of which tokens, in how many of them; None once a key came or went.
        self._found: tuple[IntArray | None, int, Hit | None] = (None, 0, None)
        self._together = _together(shapes)
        #: hits end where a block of every table does
        sizes = {shape.page_tokens for shape in shapes}
        self._align = math.lcm(*sizes)
        #: tokens of a page: a number where all tables have the same
        self._page_tokens = tables.shapes.page_tokens if len(sizes) > 1 else self._align
        longest = int((tables.shapes.width * tables.shapes.page_tokens[:, 0]).max())
        self._interval = self._align if retention_tokens is None else retention_tokens
        self._interval *= self._interval <= longest  # else no sequence comes that far
        self._sparse = retention_tokens is not None
        self._ends: IntArray = np.zeros((rows, 2), dtype=np.int64)  # further ends of hits
        self._slides = np.array([shape.kind == "sliding" for shape in shapes])
        #: how many blocks of a window a hit needs before it ends, of each table
        self._need = np.array([-(-(shape.window - 1) // shape.page_tokens) for shape in shapes])

    # -- admission ---------------------------------------------------------------------------
    def find(self, prompt: Prompt) -> Hit:
        keys, shapes = self._prompt_keys(prompt), self._tables.shapes.tables
        tokens = prompt.tokens - 1 if keys else 0
        # What was found for more of these tokens is still the longest, if that much is asked for.
        ids, most, hit = self._found
        if ids is prompt.token_ids and hit is not None and hit.tokens <= tokens <= most:
            return hit
        most = tokens
        longest = 0
        found: dict[int, list[int]] = {}
        while tokens:
            before = tokens
            for first, members in self._together:
                shape = shapes[first]
                if first not in found or shape.drops:
                    tokens, runs = self._run(shape, members, keys[shape.page_tokens], tokens)
                    found.update(zip(members, runs, strict=True))
                tokens = min(tokens, len(found[first]) * shape.page_tokens)
                longest = longest or tokens  # further ones look no farther
            if tokens == before:
                break
        first = self._tables.shapes.columns_behind(tokens)
        hit = Hit(
            tokens,
            first,
            [
                np.array(found[i][at : tokens // shape.page_tokens], dtype=np.int64)
                if tokens
                else NO_PAGES
                for i, (shape, at) in enumerate(zip(shapes, first.tolist(), strict=True))
            ],
            longest,
        )
        self._found = (prompt.token_ids, most, hit)
        return hit

    def _run(
        self, shape: TableShape, members: list[int], keys: BlockKeys, tokens: int
    ) -> tuple[int, list[list[int]]]:
        """Return the longest hit of tables that keep the same, up to `tokens`; and their pages.

        The pages begin at the first column, with -1 for one that a hit does not need.
        """
        t = shape.page_tokens
        columns = min(tokens // t, len(keys))
        if shape.kind == "sliding":
            start, stop = self._window(shape, members, keys, columns)
        else:
            chunk = tokens // shape.window * shape.window // t if shape.drops else 0
            start = stop = min(chunk, columns)
            while stop < columns and self._has(members, keys, stop):
                stop += 1
        stop -= stop * t % self._align // t
        start = min(start, stop)
        pages = [
            [-1] * start + [self._page_of[i][key] for key in keys.first[start:stop]]
            for i in members
        ]
        return stop * t, pages

    def _window(
        self, shape: TableShape, members: list[int], keys: BlockKeys, columns: int
    ) -> tuple[int, int]:
        """Return the columns of the last window that is held whole; else what leads.

        Deepest first; a window ends where a block of every table does.
        """
        need, t = -(-(shape.window - 1) // shape.page_tokens), shape.page_tokens
        run = 0
        for column in range(columns - 1, -1, -1):
            if not self._has(members, keys, column):
                run = 0
                continue
            if not run and (column + 1) * t % self._align:
                continue
            run += 1
            if run >= need:
                return column, column + run
        return 0, run

    def _has(self, members: list[int], keys: BlockKeys, column: int) -> bool:
        """Say whether all of these tables hold a block."""
        key = keys.first[column]
        for table in members:
            page = self._page_of[table].get(key)
            if page is None or self._second[page] != keys.second[column]:
                return False
        return True

    def hold(self, row: int, hit: Hit) -> None:
        if not hit.tokens:
            return
        tables = self._tables
        pages = np.concatenate(hit.pages)
        idle = pages[tables.ref[pages] == 0]
        if len(idle):
            self._pools.remove(idle)
        tables.start(row, hit.first, hit.pages)

    def admitted(self, row: int, prompt: Prompt, demand: Demand, hit: Hit, alone: bool) -> None:
        self._keys[row] = self._prompt_keys(prompt)
        known = 0 if prompt.token_ids is None else len(prompt.token_ids)
        self._known[row] = known if alone else min(prompt.tokens, known)
        self._done[:, row] = hit.columns()
        if self._sparse:
            parts = hit.longest if hit.longest > hit.tokens else 0
            self._ends[row] = (demand.prompt_tokens - 1, parts)
        if prompt.token_ids is not None:
            self._stats.lookups += 1
            self._stats.lookup_tokens += max(prompt.tokens, prompt.whole_tokens)
            self._stats.hit_tokens += hit.tokens
        self.grown(np.array([row]), np.array([prompt.tokens]))

    def _prompt_keys(self, prompt: Prompt) -> dict[int, BlockKeys]:
        """Return the keys of all full blocks, by their tokens; none where no tokens are known.

        A request is often looked up again before it is granted, so the last answer is kept.
        """
        if prompt.token_ids is None:
            return {}
        if self._last[0] is not prompt.token_ids:
            sizes = {shape.page_tokens for shape in self._tables.shapes.tables}
            keys = {size: block_keys(prompt.token_ids, size) for size in sizes}
            self._last = (prompt.token_ids, keys)
        return self._last[1]

    # -- growth ------------------------------------------------------------------------------
    def grown(self, rows: IntArray, after: IntArray) -> None:
        tables = self._tables
        tokens = np.minimum(after, self._known[rows]) // self._align * self._align
        full, done = np.atleast_2d(tokens // self._page_tokens), self._done[:, rows]
        at = np.flatnonzero((full > done).any(axis=0))
        if not len(at):
            return
        rows, done = rows[at], done[:, at]
        full = np.maximum(full[:, at], done)
        self._done[:, rows] = full
        start = np.maximum(done, tables.gone[:, rows])
        row, table, k = spread(np.maximum(full - start, 0))
        column = start[table, row] + k
        reachable = self._reachable(table, rows[row], column)
        self._name(*tables.entries_at(table[reachable], rows[row[reachable]], column[reachable]))

    def _name(self, tables: IntArray, rows: IntArray, columns: IntArray, pages: IntArray) -> None:
        """Key full blocks, which rows have in these columns."""
        self._found = (None, 0, None)
        tokens = self._tables.shapes.page_tokens[:, 0]
        sizes = tokens.tolist()
        each = zip(*(of.tolist() for of in (tables, rows, columns, pages)), strict=True)
        for table, row, column, page in each:
            keys = self._keys[row][sizes[table]]
            key = keys.first[column]
            if self._page_of[table].setdefault(key, page) != page:
                self._more[table].setdefault(key, []).append(page)
            self._key[page], self._table_of[page] = key, table
            self._second[page] = keys.second[column]
        self._pools.name(pages, (columns + 1) * tokens[tables])
        self._stats.keyed_blocks += len(pages)

    def _reachable(self, tables: IntArray, rows: IntArray, columns: IntArray) -> np.ndarray:
        """Say of blocks whether any hit could need them: the last of a window where hits end.

        A window of one token needs none, so that its layers never have a hit, as in vLLM.
        """
        t, need = self._tables.shapes.page_tokens[tables, 0], self._need[tables]
        found, interval = ~self._slides[tables], self._interval // t
        if self._interval:
            last = columns % np.maximum(interval, 1) >= interval - need
            found |= (interval > 0) & ((need >= interval) | last)
        if self._sparse:
            stops = self._ends[rows] // self._align * self._align // t[:, None]
            before = stops - columns[:, None]
            found |= ((before > 0) & (before <= need[:, None])).any(axis=1)
        return found

    def diverged(self, rows: IntArray) -> None:
        self._known[rows] = 0
        self._done[:, rows] = 0
        for row in rows.tolist():
            self._keys[row] = {}

    def truncated(self, row: int, length: int) -> None:
        tables, t = self._tables, self._tables.shapes.page_tokens[:, 0]
        self._known[row] = min(int(self._known[row]), length)
        full = length // t
        self._done[:, row] = np.minimum(self._done[:, row], full)
        for table, keep in enumerate(full.tolist()):
            pages = tables.table[table][row, keep : int(tables.count[table, row])]
            # What others hold in full they may go on sharing.  But the page in which this row now
            # ends will be written by it, in place if the others leave first.
            own = tables.ref[pages] == 1
            if length % t[table]:
                own[:1] = True
            lost = pages[own & self._pools.keyed(pages)]
            if len(lost):
                self._pools.unname(lost)
                self._evicted(lost.tolist())

    def _evicted(self, pages: list[int]) -> None:
        """Forget pages that have lost their keys."""
        self._found = (None, 0, None)
        for page in pages:
            table = self._table_of[page]
            take_name(self._page_of[table], self._more[table], self._key[page], page)

    # -- views -------------------------------------------------------------------------------
    def stats(self) -> PrefixStats:
        self._stats.evictions = self._pools.evictions
        return self._stats

    def check(self, lengths: IntArray) -> None:
        tables, keyed = self._tables, self._pools.keyed(np.arange(self._pools.num_pages))
        named = 0
        for table, page_of in enumerate(self._page_of):
            for key, page in page_of.items():
                pages = [page, *self._more[table].get(key, [])]
                named += len(pages)
                for each in pages:
                    assert keyed[each], "the index names a page without a key"
                    assert self._key[each] == key, "a page stands under a key that is not its own"
                    assert self._table_of[each] == table, "a page stands in another table's index"
        assert named == int(keyed.sum()), "a keyed page is not in the index"
        for table, shape in enumerate(tables.shapes.tables):
            partial = np.flatnonzero(lengths % shape.page_tokens)
            last = tables.table[table][partial, lengths[partial] // shape.page_tokens]
            assert not keyed[last].any(), "a page that is yet to be filled has a key"
            for row in np.flatnonzero(self._done[table]).tolist():
                start, stop = int(tables.gone[table, row]), int(self._done[table, row])
                assert stop * shape.page_tokens <= lengths[row], "a row is keyed beyond its end"
                keys = self._keys[row].get(shape.page_tokens, NO_KEYS).first
                pages = tables.table[table][row, start:stop].tolist()
                for key, page in zip(keys[start:stop], pages, strict=True):
                    assert not keyed[page] or self._key[page] == key, "a key of other tokens"


class HybridIndex(HashLayerIndex):
    """Pages are evicted in the order in which vLLM's scheduler gives them back, refusals too."""

    def __init__(self, tables: LayerTables, retention_tokens: int | None = None) -> None:
        super().__init__(tables, retention_tokens)
        self._refused: int | None = None  # the row that was refused growth last

    def refused(self, row: int) -> None:
        if row != self._refused:
            self._refused = row
            self._tables.since = []

    def is_refused(self, rows: IntArray) -> bool:
        return len(rows) > 0 and int(rows[0]) == self._refused

    def make_up(self, forget: Callable[[], None]) -> None:
        dropped, self._refused, self._tables.since = self._tables.since, None, None
        forget()
        # What it shared with those that were released became free with the last of them.
        pages = np.concatenate([NO_PAGES, *(pages for _, pages in dropped or [])])
        tables = np.concatenate([NO_PAGES, *(tables for tables, _ in dropped or [])])
        last = len(pages) - 1 - np.unique(pages[::-1], return_index=True)[1]
        last = np.sort(last[self._pools.keyed(pages[last]) & (self._tables.ref[pages[last]] == 0)])
        self._pools.remove(pages[last])
        self._pools.give(tables[last], pages[last])

    def planned(self) -> None:
        self._refused, self._tables.since = None, None

    def mixes(self, pages: IntArray) -> bool:
        return not self._pools.keyed(pages).all()


def _together(shapes: list[TableShape]) -> list[tuple[int, list[int]]]:
    """Return tables that keep the same, those that drop nothing first: the first, and all."""
    alike: dict[tuple[str, int, int], list[int]] = {}
    for index, shape in enumerate(shapes):
        alike.setdefault((shape.kind, shape.window, shape.page_tokens), []).append(index)
    groups = [(members[0], members) for members in alike.values()]
    return sorted(groups, key=lambda group: shapes[group[0]].drops)
