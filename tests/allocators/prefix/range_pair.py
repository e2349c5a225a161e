"""virtual + hash and the slow model of its rules, side by side."""

from __future__ import annotations

import numpy as np

from allocators.base import Demand, Geometry, NeverFits, Prompt
from allocators.virtual import Virtual
from tests.allocators.prefix.slow_ranges import SlowRanges
from tests.allocators.prefix.streams import Streams

ROWS = 6


def is_paper(options: dict) -> bool:
    return options.get("rules") == "paper"


def pool(page_groups: int, size: int, index: str = "hash", **knobs) -> Virtual:
    """A page-group of one 64 KiB page a tensor holds `size` tokens."""
    geometry = Geometry(
        capacity_tokens=page_groups * size, max_seqs=ROWS, max_len=12 * size, kv_heads=8,
        head_dim=4096 // size,
    )  # fmt: skip
    real = Virtual(geometry, page_size="64KiB", prefix_index=index, **knobs)
    assert (real.pages.num_pages, real.geometry.page_tokens) == (page_groups, size)
    return real


class Pair:
    """The allocator and the model, given the same calls, and what the grants have mapped."""

    def __init__(self, page_groups: int, size: int, watermark: int, options: dict) -> None:
        self.real, self.streams = pool(page_groups, size, **options), Streams()
        assert self.real.watermark == 0  # 1 % of so few
        self.real.watermark = watermark
        knobs = {
            "rules": "vattention", "admission": "needed", "deferred": True, "background": True,
        } | options  # fmt: skip
        if is_paper(options):
            share = knobs.pop("reclaim_free", 0.1)
            knobs = {"eager": True, "keep_free": int(share * page_groups)} | knobs
            knobs["keep_free"] *= knobs["deferred"]
        self.slow = SlowRanges(ROWS, page_groups, size, 12 * size, watermark=watermark, **knobs)
        self.page_groups, self.size = page_groups, size
        self.mapped: dict[tuple[int, int], int] = {}

    def execute(self, grant) -> None:
        for vrange, column, page in grant.unmaps.tolist():
            assert self.mapped.pop((vrange, column)) == page
        for vrange, column, page in grant.maps.tolist():
            assert (vrange, column) not in self.mapped
            self.mapped[vrange, column] = page

    def admit(self, draw) -> None:
        idle = [row for row in range(ROWS) if row not in self.slow.range_of]
        if not idle:
            return
        prompt = draw(1, 6 * self.size)
        ids = self.streams.make(draw(0, 2), draw(0, 6 * self.size), prompt + draw(0, 3 * self.size))
        stream = tuple(ids.tolist())
        hit = len(self.slow.hits(stream, prompt)) * self.size
        assert self.real.lookup(Prompt(prompt, ids)) == hit
        tokens = min(prompt, hit + draw(1, prompt)) if draw(0, 1) else prompt
        row = idle[draw(0, len(idle) - 1)]
        ask = Prompt(tokens, ids, whole_tokens=prompt)
        try:
            grant = self.real.admit(np.array([row]), ask, Demand(prompt, 1))
        except NeverFits:
            assert -(-prompt // self.size) > self.page_groups
            return
        expected = self.slow.admit(row, stream, tokens, prompt)
        assert (grant.cached_tokens if grant is not None else None) == expected
        if grant is not None:
            self.execute(grant)

    def grow(self, draw) -> None:
        n = draw(1, 3) if draw(0, 1) else 1
        rows = [
            r
            for r in self.slow.range_of
            if self.slow.length[r] + n <= 12 * self.size and draw(0, 2)
        ]
        if rows:
            grant = self.real.grow(np.array(rows), n)
            assert (grant is not None) == self.slow.grow(rows, n)
            if grant is not None:
                self.execute(grant)

    def release(self, draw) -> None:
        rows = [row for row in self.slow.range_of if not draw(0, 2)]
        if rows:
            back_again = bool(draw(0, 1))
            take = self.real.preempt if back_again else self.real.release
            grant = take(np.array(rows))
            assert not len(grant.unmaps)
            self.execute(grant)
            self.slow.release(rows, back_again)

    def begin_step(self, draw) -> None:
        for grant in self.real.begin_step():
            self.execute(grant)
        self.slow.begin_step()

    def compare(self) -> None:
        real, slow = self.real, self.slow
        assert real.pages.free.pages().tolist() == slow.free
        assert list(real.ranges._idle) == slow.idle
        table = [[p for p in row if p >= 0] for row in real.pages.table.tolist()]
        assert table == slow.mapped
        flat = {(s, c): p for s, row in enumerate(table) for c, p in enumerate(row)}
        assert self.mapped == flat
        assert set(np.flatnonzero(real.ranges._pool.keyed).tolist()) == set(slow.named)
        assert real.evictions == slow.saw["evictions"]
        free = len(slow.free)
        cached = len({page for row in slow.mapped for page in row if slow.is_cached(page)})
        assert real.available == slow.available()
        assert real.balance() == (self.page_groups - cached - free, cached, free)
        real.check()
