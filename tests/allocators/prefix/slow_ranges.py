"""The rules of docs/prefix.md for `virtual`, with lists and tuples: slow, and plain to read.

`mapped[vrange]` are the page-groups of a virtual range, `named[page]` the tokens up to its end.
"""

from __future__ import annotations

from collections import Counter


class SlowRanges:
    def __init__(self, ranges, num_pages, size, max_len, *, deferred, eager, background, keep_free):
        self.size, self.max_len = size, max_len
        self.deferred, self.eager, self.background = deferred, eager, background
        self.keep_free = keep_free
        self.free = list(range(num_pages))
        self.mapped: list[list[int]] = [[] for _ in range(ranges)]
        self.idle = list(range(ranges))
        self.named: dict[int, tuple] = {}
        self.range_of: dict[int, int] = {}
        self.stream: dict[int, tuple] = {}
        self.length: dict[int, int] = {}
        self.saw: Counter[str] = Counter()

    def holders(self, page: int) -> list[int]:
        return [vrange for vrange, pages in enumerate(self.mapped) if page in pages]

    def is_cached(self, page: int) -> bool:
        holders = self.holders(page)
        return bool(holders) and all(vrange in self.idle for vrange in holders)

    def available(self) -> int:
        return len(self.free) + len({p for row in self.mapped for p in row if self.is_cached(p)})

    def hits(self, stream: tuple, tokens: int) -> list[int]:
        found = []
        for end in range(self.size, min(tokens - 1, len(stream)) + 1, self.size):
            pages = [page for page, key in self.named.items() if key == stream[:end]]
            if not pages:
                break
            found.append(pages[0])  # the one that has been named for longest
        return found

    # -- calls -------------------------------------------------------------------------------
    def admit(self, row: int, stream: tuple, tokens: int, whole: int) -> int | None:
        found = self.hits(stream, tokens)
        num_pages = -(-max(tokens, whole) // self.size)
        cached = sum(map(self.is_cached, found))
        if num_pages - len(found) + cached > self.available():
            self.saw["refusals"] += 1
            self.saw["refused for its own hits"] += num_pages - len(found) <= self.available()
            return None
        self.saw["hits on live page-groups"] += len(found) - cached
        self.saw["hits on idle page-groups"] += cached
        vrange = self.open(-(-tokens // self.size), found)
        self.range_of[row], self.stream[row], self.length[row] = vrange, stream, 0
        self.extend([row], tokens)
        if self.eager and self.free and not any(map(self.is_ready, self.idle)):
            empty = [vrange for vrange in self.idle if not self.mapped[vrange]]
            if empty:
                self.mapped[empty[0]].append(self.free.pop(0))
                self.saw["mapped eagerly"] += 1
        return len(found) * self.size

    def grow(self, rows: list[int], n: int) -> bool:
        missing = sum(
            max(0, self.pages_for(row, n) - len(self.mapped[self.range_of[row]])) for row in rows
        )
        if missing > self.available():
            self.saw["refusals to grow"] += 1
            return False
        self.extend(rows, n)
        return True

    def release(self, rows: list[int]) -> None:
        for row in rows:
            vrange = self.range_of.pop(row)
            keep = len(self.mapped[vrange]) if self.deferred else 0
            self.cut(vrange, keep)
            self.idle.append(vrange)
            del self.stream[row], self.length[row]
        self.reclaim(min(self.keep_free, self.available()))

    # -- ranges -------------------------------------------------------------------------------
    def is_ready(self, vrange: int) -> bool:
        return bool(self.mapped[vrange]) and self.is_blank(vrange, self.mapped[vrange][0])

    def is_blank(self, vrange: int, page: int) -> bool:
        return self.holders(page) == [vrange] and page not in self.named

    def open(self, need: int, found: list[int]) -> int:
        def in_place(vrange: int) -> int:
            kept = 0
            for column, page in enumerate(self.mapped[vrange]):
                if column < len(found):
                    good = page == found[column]
                else:
                    good = column < need and self.holders(page) == [vrange] and page not in found
                if not good:
                    break
                kept += 1
            return kept

        def loses(vrange: int) -> bool:
            rest = [page for page in self.mapped[vrange] if page not in found]
            return any(page in self.named and self.holders(page) == [vrange] for page in rest)

        harmless = [vrange for vrange in self.idle if not loses(vrange)]
        vrange = self.idle[0]
        if harmless:
            vrange = min(harmless, key=lambda s: len(self.mapped[s]) - 2 * in_place(s))
        self.saw["prefixes overwritten"] += not harmless
        kept = in_place(vrange)
        self.saw["taken with its prefix in place"] += 0 < len(found) <= kept
        self.idle.remove(vrange)
        self.cut(vrange, kept, spared=found)
        self.mapped[vrange] += found[kept:]
        for page in self.mapped[vrange][len(found) :]:
            self.forget(page)
        return vrange

    def cut(self, vrange: int, keep: int, spared: list[int] = ()) -> None:
        while len(self.mapped[vrange]) > keep:
            page = self.mapped[vrange].pop()
            if not self.holders(page) and page not in spared:
                self.forget(page)
                self.free.append(page)

    def forget(self, page: int) -> None:
        self.saw["evictions"] += self.named.pop(page, None) is not None

    def reclaim(self, wanted: int) -> None:
        for vrange in self.idle:
            kept = [c for c, page in enumerate(self.mapped[vrange]) if self.is_cached(page)]
            while len(self.free) < wanted and kept and len(self.mapped[vrange]) > kept[0]:
                self.saw["reclaimed"] += 1
                before = len(self.free)
                self.cut(vrange, len(self.mapped[vrange]) - 1)
                self.saw["unmapped from one of several"] += len(self.free) == before
        assert len(self.free) >= wanted

    # -- growth ------------------------------------------------------------------------------
    def pages_for(self, row: int, n: int) -> int:
        return -(-(self.length[row] + n) // self.size)

    def extend(self, rows: list[int], n: int) -> None:
        pages = [self.mapped[self.range_of[row]] for row in rows]
        missing = [self.pages_for(row, n) - len(p) for row, p in zip(rows, pages, strict=True)]
        self.reclaim(sum(max(0, m) for m in missing))
        for _ in range(n):
            for row, held in zip(rows, pages, strict=True):
                self.length[row] += 1
                if len(held) * self.size < self.length[row]:
                    held.append(self.free.pop(0))
        self.name(rows, n)
        for row, held in zip(rows, pages, strict=True):
            full = len(held) * self.size == self.length[row] < self.max_len
            if self.background and full and self.free:
                held.append(self.free.pop(0))
                self.saw["mapped ahead"] += 1

    def name(self, rows: list[int], n: int) -> None:
        for back in range(n - 1, -1, -1):
            for row in rows:
                length = self.length[row] - back
                block, rest = divmod(length, self.size)
                if not rest and block and length <= len(self.stream[row]):
                    page = self.mapped[self.range_of[row]][block - 1]
                    if page not in self.named:
                        self.saw["duplicates"] += self.stream[row][:length] in self.named.values()
                        self.named[page] = self.stream[row][:length]
