"""Two levels of pages: large ones that any layer group may have, small ones carved from them.

Follows Jenga (Zhang et al., SOSP 2025, arXiv 2503.18292, section 4).  A small page holds the tokens
of one page of one layer group, in bytes its own; a large page has the least common multiple of the
bytes of all small ones, so it is divided into small pages of any layer group without a rest.

    large page 7, for sliding     [ row 3 | row 3 | free  | free ]     row 3 fills it on
    large page 8, for full        [ row 3 | row 5 ]
    large page 9                  free: of no layer group

A small page is taken from a large page that the same sequence has begun, else from a new large one,
else from one that another sequence has begun (request-aware allocation).  A large page is free as
soon as all its small pages are.  A new large page is not opened where it is known that what is to
be taken now would lack it: the paper evicts or preempts then, here the caller has been promised
that all of it fits.
"""

from __future__ import annotations

import math

import numpy as np

from allocators.base import IntArray
from allocators.layered.pools import PagePools
from allocators.page_table import FreeQueue

#: who begins all large pages where sequences share them
NOBODY = -1


class LargePages(PagePools):
    """`page_bytes` [tables] are those of small pages; `per_large` how many a large page has.

    Small page j of large page l has the number l * per_large + j, behind those of earlier tables.
    Not `request_aware`, sequences fill large pages together, and a new one is opened only where
    none has room.
    """

    def __init__(self, pool_bytes: int, page_bytes: list[int], request_aware: bool = True) -> None:
        self._page_bytes = np.array(page_bytes, dtype=np.int64)
        self.large_bytes, self.request_aware = math.lcm(*page_bytes), request_aware
        self.num_large = pool_bytes // self.large_bytes
        self.per_large = [self.large_bytes // of for of in page_bytes]
        self._sizes = self.num_large * np.array(self.per_large, dtype=np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes
        self.num_pages = int(self._sizes.sum())
        self.large = FreeQueue(self.num_large)
        self.members = np.eye(len(page_bytes), dtype=np.int64)
        tables = len(page_bytes)
        #: of each table: small pages in use, and those free in large pages that are in use
        self.used, self.spare = [0] * tables, [0] * tables
        #: of the small pages that were promised together, those still to be taken
        self.due = [0] * tables
        # Of each table: free small pages by large page, in the order in which those came to have
        # any; whose each large page is; and the ones of a sequence that have free small pages.
        self._holes: list[dict[int, list[int]]] = [{} for _ in range(tables)]
        self._owner: list[dict[int, int]] = [{} for _ in range(tables)]
        self._begun: list[dict[int, list[int]]] = [{} for _ in range(tables)]

    # -- how much there is -------------------------------------------------------------------
    @property
    def num_free(self) -> int:
        """How many large pages are of no layer group, or could be."""
        return len(self.large)

    def vacant(self, table: int, large: int) -> int:
        """Return how many small pages of a large page in use are not."""
        return len(self._holes[table].get(large, ()))

    def large_needed(self, pages: list[int], spare: list[int]) -> int:
        """Return the new large pages that so many small ones need beside the `spare` ones."""
        triples = zip(pages, spare, self.per_large, strict=True)
        return sum(-((held - n) // k) for n, held, k in triples if n > held)

    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        """`leave` are large pages that would still be free; remembers what it was asked for."""
        self.due = pages.tolist()
        return self.large_needed(self.due, self.spare) + int(np.max(leave)) <= self.num_free

    def fits_empty(self, pages: IntArray) -> bool:
        return self.large_needed(pages.tolist(), [0] * len(pages)) <= self.num_large

    def serves(self, takes: IntArray, tables: IntArray, at: IntArray, pages: IntArray) -> bool:
        """As if all gave before any takes, since they do; remembers what it was asked for.

        Which pages are given back matters: one more in a large page of its own frees that.
        """
        self.due = takes.sum(axis=0).tolist()
        spare, freed = list(self.spare), 0
        for table in np.unique(tables).tolist():
            of = pages[tables == table] - self._first[table]
            large, counts = np.unique(of // self.per_large[table], return_counts=True)
            for page, count in zip(large.tolist(), counts.tolist(), strict=True):
                before = self.vacant(table, page)
                if before + count == self.per_large[table]:
                    freed += 1
                    spare[table] -= before
                else:
                    spare[table] += count
        return self.large_needed(self.due, spare) <= self.num_free + freed

    def quiet(self, pages: IntArray) -> bool:
        """Each page could open a large one: so none is refused that for what else is promised."""
        return int(pages.sum()) <= len(self.large) or self._takes_whole(pages)

    def _takes_whole(self, pages: IntArray) -> bool:
        """Say whether they fit and are large pages, which are placed alike whatever is promised."""
        carved = any(n and k > 1 for n, k in zip(pages.tolist(), self.per_large, strict=True))
        return not carved and self.fits(pages)

    # -- taking and giving -------------------------------------------------------------------
    def take(self, tables: IntArray, rows: IntArray) -> IntArray:
        if not self._carves(tables):
            self._count(tables, 1)
            return self._take_large(len(tables)) + self._first[tables]
        pairs = zip(tables.tolist(), rows.tolist(), strict=True)
        return np.array([self._take(table, row) for table, row in pairs]) + self._first[tables]

    def _carves(self, tables: IntArray) -> bool:
        """Say whether a small page of any of these tables is less than a large one."""
        return any(self.per_large[table] > 1 for table in set(tables.tolist()))

    def _count(self, tables: IntArray, taken: int) -> None:
        for table, n in enumerate(np.bincount(tables, minlength=len(self.used)).tolist()):
            self.used[table] += taken * n
            self.due[table] = max(self.due[table] - max(taken, 0) * n, 0)

    def _take_large(self, n: int) -> IntArray:
        return self.large.take(n)

    def _take(self, table: int, row: int) -> int:
        begun, holes = self._begun[table], self._holes[table]
        if not self.request_aware:
            row = NOBODY
        if row not in begun and (not self.spare[table] or self._may_open(table)):
            self._open(table, row)
        large = begun[row][0] if row in begun else self._others(table)
        small = holes[large].pop(0)
        if not holes[large]:
            del holes[large]
            self._set_aside(table, large)
        self.spare[table] -= 1
        self.used[table] += 1
        self.due[table] = max(self.due[table] - 1, 0)
        return large * self.per_large[table] + small

    def _may_open(self, table: int) -> bool:
        """Say whether a new large page can be spared by all that is promised."""
        due, spare = list(self.due), list(self.spare)
        due[table] -= 1
        spare[table] += self.per_large[table] - 1  # less the one that is taken
        return self.large_needed(due, spare) < self.num_free

    def _open(self, table: int, row: int) -> None:
        large, n = int(self._take_large(1)[0]), self.per_large[table]
        self._holes[table][large] = list(range(n))
        if n > 1:
            self._owner[table][large] = row
            self._begun[table].setdefault(row, []).append(large)
        self.spare[table] += n

    def _others(self, table: int) -> int:
        """Return a large page of anybody's with a free small page."""
        return next(iter(self._holes[table]))

    def give(self, tables: IntArray, pages: IntArray) -> None:
        small = pages - self._first[tables]
        if not self._carves(tables):
            self._count(tables, -1)
            self.large.give(small)
            return
        pairs = zip(tables.tolist(), small.tolist(), strict=True)
        whole = [large for large in (self._give(*pair) for pair in pairs) if large is not None]
        self.large.give(np.array(whole, dtype=np.int64))

    def _give(self, table: int, page: int) -> int | None:
        """Give a small page back; return its large page if that is free now."""
        large, small = divmod(page, self.per_large[table])
        self.used[table] -= 1
        self.spare[table] += 1
        self._leave(table, large, small)
        return large if self._is_whole(table, large) and self._close(table, large) else None

    def _is_whole(self, table: int, large: int) -> bool:
        return self.vacant(table, large) == self.per_large[table]

    def _leave(self, table: int, large: int, small: int) -> None:
        """Let others have a small page."""
        holes = self._holes[table].setdefault(large, [])
        holes.append(small)
        if len(holes) == 1 and large in self._owner[table]:
            self._begun[table].setdefault(self._owner[table][large], []).append(large)

    def _close(self, table: int, large: int) -> bool:
        """Take a large page that nobody uses from its table; say that it is of no layer group."""
        self._set_aside(table, large)
        self._holes[table].pop(large, None)
        self._owner[table].pop(large, None)
        self.spare[table] -= self.per_large[table]
        return True

    def _set_aside(self, table: int, large: int) -> None:
        """Take a large page from those that its sequence goes on with, if it is anybody's."""
        begun, row = self._begun[table], self._owner[table].get(large)
        if row is not None and large in begun.get(row, ()):
            begun[row].remove(large)
            if not begun[row]:
                del begun[row]

    def left(self, rows: IntArray) -> None:
        """Note that these sequences have ended: the large pages that they began are nobody's."""
        gone = set(rows.tolist())
        for owners, begun in zip(self._owner, self._begun, strict=True):
            for large in [page for page, row in owners.items() if row in gone]:
                del owners[large]
            for row in gone:
                begun.pop(row, None)

    # -- views -------------------------------------------------------------------------------
    def free(self) -> IntArray:
        """Return the numbers of small pages that are not in use, [tables]."""
        return self._sizes - np.array(self.used)

    @property
    def sizes(self) -> IntArray:
        return self._sizes

    @property
    def page_bytes(self) -> IntArray:
        return self._page_bytes

    def places(self, table: int, pages: IntArray) -> IntArray:
        large, small = np.divmod(pages - self._first[table], self.per_large[table])
        return large * self.large_bytes + small * self._page_bytes[table]

    def check(self, ref: IntArray) -> None:
        in_use = np.zeros(self.num_large, dtype=np.int64)
        for table, n in enumerate(self.per_large):
            first = int(self._first[table])
            held = ref[first : first + self.num_large * n].reshape(-1, n) > 0
            assert int(held.sum()) == self.used[table], "small pages are miscounted"
            partly = held.any(axis=1)
            in_use += partly
            vacant = self._vacant_pages(table)
            expected = {page for page in np.flatnonzero(partly).tolist() if not held[page].all()}
            assert set(vacant) == expected, "a large page's free small pages are lost"
            for page, free in vacant.items():
                assert sorted(free) == np.flatnonzero(~held[page]).tolist(), "a hole is in use"
            assert sum(map(len, vacant.values())) == self.spare[table], "holes are miscounted"
            begun = [page for pages in self._begun[table].values() for page in pages]
            assert sorted(begun) == sorted(set(self._holes[table]) & set(self._owner[table]))
            assert set(self._owner[table]) <= set(np.flatnonzero(partly).tolist())
        assert (in_use <= 1).all(), "a large page is of two layer groups"
        free = self._free_large()
        assert len(np.unique(free)) == len(free), "a large page is free twice"
        assert (in_use[free] == 0).all(), "a free large page is in use"
        assert len(free) + int(in_use.sum()) == self.num_large, "a large page is lost"

    def _vacant_pages(self, table: int) -> dict[int, list[int]]:
        """Return the free small pages of each large page that is in use and has any."""
        return self._holes[table]

    def _free_large(self) -> IntArray:
        return self.large.pages()
