"""The rules of docs/prefix.md for `virtual`, with lists and tuples: slow, and plain to read.

`mapped[vrange]` are the page-groups of a virtual range, `named[page]` the tokens up to its end.
"""

from __future__ import annotations

from collections import Counter


class SlowRanges:
    def __init__(
        self, ranges, num_pages, size, max_len, *, rules, admission, deferred, background,
        watermark=0, eager=False, keep_free=0,
    ):  # fmt: skip
        self.size, self.max_len = size, max_len
        self.paper, self.deferred, self.background = rules == "paper", deferred, background
        self.keeps_room = admission == "vattention"
        self.watermark, self.eager, self.keep_free = watermark, eager, keep_free
        self.free = list(range(num_pages))
        self.mapped: list[list[int]] = [[] for _ in range(ranges)]
        self.idle = list(range(ranges))  # longest idle first
        self.named: dict[int, tuple] = {}
        self.range_of: dict[int, int] = {}
        self.stream: dict[int, tuple] = {}
        self.length: dict[int, int] = {}
        self.grown = self.coming = 0  # page-groups: of this step's growth, and of the token after
        self.saw: Counter[str] = Counter()

    def holders(self, page: int) -> list[int]:
        return [vrange for vrange, pages in enumerate(self.mapped) if page in pages]

    def is_cached(self, page: int) -> bool:
        holders = self.holders(page)
        return bool(holders) and all(vrange in self.idle for vrange in holders)

    def available(self) -> int:
        cached = {page for row in self.mapped for page in row if self.is_cached(page)}
        return len(self.free) + len(cached) + sum(map(self.excess, self.range_of))

    def excess(self, row: int) -> int:
        """How many page-groups a live range has mapped ahead."""
        return len(self.mapped[self.range_of[row]]) - self.pages_at(self.length[row])

    def pages_at(self, length: int) -> int:
        return -(-length // self.size)

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
        num_pages = self.pages_at(max(tokens, whole))
        cached = sum(map(self.is_cached, found))
        asked = num_pages - len(found) + cached
        left = self.available() - asked
        if left < 0:
            self.saw["refusals"] += 1
            self.saw["refused for its own hits"] += left + cached >= 0
            return None
        wanted = (
            0
            if not self.keeps_room or not self.range_of
            else self.watermark + self.coming - self.grown
        )
        if left < wanted:
            self.saw["refused for the watermark"] += left < self.watermark
            self.saw["refused for what others will take"] += left >= self.watermark
            return None
        self.saw["hits on live page-groups"] += len(found) - cached
        self.saw["hits on idle page-groups"] += cached
        vrange = self.open(self.pages_at(tokens), found)
        self.range_of[row], self.stream[row], self.length[row] = vrange, stream, 0
        self.extend([row], tokens)
        return len(found) * self.size

    def grow(self, rows: list[int], n: int) -> bool:
        taken = [self.more(self.length[row], n) for row in rows]
        coming = [self.more(self.length[row] + 1, n) for row in rows]
        if sum(taken) > self.available():
            self.saw["refusals to grow"] += 1
            return False
        if self.keeps_room and len(self.range_of) > 1:
            left = self.available() + self.grown - self.coming
            for each in coming:
                if left <= 0:
                    self.saw["refused the last free page-group"] += 1
                    return False
                left -= each
        if self.keeps_room:
            self.grown += sum(taken)
            self.coming += sum(coming)
        self.extend(rows, n)
        return True

    def more(self, length: int, n: int) -> int:
        return self.pages_at(length + n) - self.pages_at(length)

    def release(self, rows: list[int], back_again: bool = False) -> None:
        for row in rows:
            length = self.length.pop(row)
            self.coming -= self.more(length, 1) if back_again else 0
            self.idle.append(self.range_of.pop(row))
            del self.stream[row]

    # -- a step --------------------------------------------------------------------------------
    def begin_step(self) -> None:
        self.grown = self.coming = 0
        if self.paper:
            self.step_of_the_paper()
        elif self.background:
            self.step_of_the_thread()
        elif not self.deferred:
            self.give_all_back()

    def step_of_the_thread(self) -> None:
        due = sum(self.short(vrange, 1) for vrange in range(len(self.mapped)))
        self.reclaim(due)
        if len(self.free) < due:
            self.saw["nothing left to map ahead"] += 1
            return
        self.look_ahead()
        idle = sorted(self.idle)
        full = [vrange for vrange in idle[1:] if self.mapped[vrange]]
        if full and not due and not self.deferred:
            self.cut(full[-1], len(self.mapped[full[-1]]) - 1)
            self.saw["given back one by one"] += 1

    def look_ahead(self) -> None:
        ahead = 0
        for tokens in range(1, 10):
            for vrange in range(len(self.mapped)):
                short = self.short(vrange, tokens)
                if short <= len(self.free):
                    room = self.max_len // self.size - len(self.mapped[vrange])
                    self.map(vrange, min(short, room))
                    self.saw["mapped ahead"] += short * (tokens == 1)
                    self.saw["mapped further ahead"] += short * (tokens > 1)
                ahead += short
                if tokens > 1 and ahead >= 2:
                    return

    def step_of_the_paper(self) -> None:
        if not self.deferred:
            self.give_all_back()
        ahead = [v for v in range(len(self.mapped)) if self.background and self.short(v, 1)]
        self.reclaim_idle(max(self.keep_free, len(ahead)))
        for vrange in ahead[: len(self.free)]:
            self.map(vrange, 1)
            self.saw["mapped ahead"] += 1
        empty = [vrange for vrange in self.idle if not self.mapped[vrange]]
        if self.eager and self.free and empty and not any(map(self.is_ready, self.idle)):
            self.map(empty[0], 1)
            self.saw["mapped eagerly"] += 1

    def short(self, vrange: int, tokens: int) -> int:
        """How many page-groups a live range lacks to grow by so many tokens."""
        held = len(self.mapped[vrange])
        if vrange in self.idle or held * self.size == self.max_len:
            return 0
        length = next(self.length[row] for row, v in self.range_of.items() if v == vrange)
        return max(0, self.pages_at(length + tokens) - held)

    def give_all_back(self) -> None:
        for vrange in sorted(self.idle):
            self.saw["given back at once"] += len(self.mapped[vrange])
            self.cut(vrange, 0)

    def map(self, vrange: int, page_groups: int) -> None:
        for _ in range(page_groups):
            self.mapped[vrange].append(self.free.pop(0))

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
                    good = self.holders(page) == [vrange] and page not in found
                if not good:
                    break
                kept += 1
            return kept

        def operations(vrange: int) -> int:
            kept = in_place(vrange)
            return len(self.mapped[vrange]) - kept + max(0, need - kept)

        def loses(vrange: int) -> bool:
            rest = [page for page in self.mapped[vrange] if page not in found]
            return any(page in self.named and self.holders(page) == [vrange] for page in rest)

        harmless = [vrange for vrange in self.idle if not loses(vrange)]
        vrange = self.idle[0]
        if harmless:
            vrange = min(harmless, key=operations)
        self.saw["prefixes overwritten"] += not harmless
        kept = in_place(vrange)
        self.saw["taken with its prefix in place"] += 0 < len(found) <= kept
        self.idle.remove(vrange)
        self.saw["taken with excess"] += kept > need
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
        self.reclaim_idle(wanted)
        for vrange in range(len(self.mapped))[::-1]:
            row = next((row for row, v in self.range_of.items() if v == vrange), None)
            if row is not None and len(self.free) < wanted and self.excess(row) > 0:
                self.saw["reclaimed from live ranges"] += self.excess(row)
                self.cut(vrange, self.pages_at(self.length[row]))

    def reclaim_idle(self, wanted: int) -> None:
        for vrange in self.idle:
            kept = [c for c, page in enumerate(self.mapped[vrange]) if self.is_cached(page)]
            while len(self.free) < wanted and kept and len(self.mapped[vrange]) > kept[0]:
                self.saw["reclaimed"] += 1
                before = len(self.free)
                self.cut(vrange, len(self.mapped[vrange]) - 1)
                self.saw["unmapped from one of several"] += len(self.free) == before

    # -- growth ------------------------------------------------------------------------------
    def extend(self, rows: list[int], n: int) -> None:
        """Let rows grow; page-groups go round if enough are free, else range by range."""
        for row in rows:
            self.length[row] += n
        if sum(max(0, -self.excess(row)) for row in rows) <= len(self.free):
            while short := [row for row in rows if self.excess(row) < 0]:
                for row in short:
                    self.map(self.range_of[row], 1)
        else:
            for row in rows:
                lack = max(0, -self.excess(row))
                self.reclaim(lack)
                self.map(self.range_of[row], lack)
        self.name(rows, n)

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
