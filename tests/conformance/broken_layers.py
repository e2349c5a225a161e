"""Managers of layer groups with one bug each, as `broken`: the suite alone must find it."""

from __future__ import annotations

from dataclasses import replace

from allocators.base import NO_MAPS, StepGrants
from allocators.layered import growing
from allocators.layered.contiguous import LayeredContiguous
from allocators.layered.grouping import split
from allocators.layered.jenga import Jenga
from allocators.layered.jenga_pools import LargePages
from allocators.layered.virtual import LayeredVirtual
from tests.conformance.broken import Trusting
from tests.conformance.matrix_layers import PAGE, pool


class RingBase(Trusting, LayeredContiguous):
    """A ring goes round within a sequence: steps are short."""

    def __init__(self, geometry):
        super().__init__(pool("windows", step_tokens=9), reservation="max", placement="first_fit")


class JengaBase(Trusting, Jenga):
    def __init__(self, geometry):
        geometry = pool("windows")
        spread = split(geometry.layer_groups, 4)
        pages = self.large_pages(geometry.pool_bytes, [of.page_bytes for of in spread.tables])
        super().__init__(geometry, spread, pages, watermark=0.0)

    large_pages = LargePages


class VirtualBase(Trusting, LayeredVirtual):
    def __init__(self, geometry):
        super().__init__(pool("windows", PAGE // 8), page_size="64KiB")


class SizesBase(Trusting, LayeredVirtual):
    """Pages of windows are a quarter of those of other layer groups."""

    def __init__(self, geometry):
        sizes = {"page_size": "256KiB", "window_page_size": "64KiB"}
        super().__init__(pool("windows", PAGE // 8), **sizes)


class RingOfTheWindow(RingBase):
    """What a step writes goes over what its first token reads."""

    def _most_of(self, kind, ring):
        return kind.window if kind.window else super()._most_of(kind, ring)

    def _ring_room(self, rows):
        return self.geometry.max_len


class PartsOverlap(RingBase):
    """The second layer group's part begins where the first one's does."""

    def _hold(self, row, extent, slots):
        super()._hold(row, extent, slots)
        self.parts[1, row] = self.parts[0, row]


class LaysOutAStraightRing(RingBase):
    """A kernel is told nothing of the ring, and reads on behind its end."""

    def layer_layout(self, rows, layer_group):
        return replace(super().layer_layout(rows, layer_group), ring=None)


class CopiesAStretchTooFew(RingBase):
    """A copy out of a ring stops at its end."""

    def _copies(self, sources, targets, slots):
        grant = super()._copies(sources, targets, slots)
        if len(grant.copies):
            grant.copies[1:, 2] = 1
        return grant


class WindowFreedEarly(JengaBase):
    """A page goes back while the token that is to be computed still reads its last slot."""

    def _asked_growth(self, rows, n):
        query = self._next_query(rows) + 1
        return growing.growth(self.tables, rows, self.length[rows], n, query)


class LargePagesButForOne(LargePages):
    """A large page is taken to be free while one of its small pages is in use."""

    def _give(self, table, page):
        large = page // self.per_large[table]
        free = super()._give(table, page)
        left = self.per_large[table] - len(self._holes[table].get(large, ()))
        return large if free is None and left == 1 else free


class GivesALargePageEarly(JengaBase):
    large_pages = LargePagesButForOne


class PagesHalfwayIntoTheLast(LargePages):
    """The first layer group's pages begin before those before them end."""

    def places(self, table, pages):
        found = super().places(table, pages)
        inside = found % self.large_bytes > 0
        return found - inside * (int(self._page_bytes[0]) // 2) if table == 0 else found


class WritesIntoItsNeighbour(JengaBase):
    large_pages = PagesHalfwayIntoTheLast


class UnmapsAWindowEarly(VirtualBase):
    """A page-group goes while the token that is being computed still reads its last slot."""

    def _interval(self, queries, lengths):
        return super()._interval(queries + 1, lengths)


class ForgetsALayerGroup(VirtualBase):
    """What a step promises is mapped in all layer groups but the last."""

    def _settle(self, rows):
        high = self.high.copy()
        self.high[-1] = self.tables.count[-1]
        steps = super()._settle(rows)
        self.high[:] = high
        return steps


class MakesTwoOfOnePage(VirtualBase):
    """Two page-groups are made of the same driver page."""

    def begin_step(self):
        found = super().begin_step()
        for made_of in self.driver.made_of:
            made_of[:, 1:] = made_of[:, :1]
        return found


class CountsPartsAsChunks(SizesBase):
    """Free small pages are promised as large ones, whatever else lies in their chunks."""

    def _pinning(self, low=None, high=None):
        return 0


class DividesInSilence(SizesBase):
    """Nobody is told that a chunk has pages of another size now."""

    def begin_step(self):
        return StepGrants(*(replace(of, converted=NO_MAPS) for of in super().begin_step()))


BASES = (RingBase, JengaBase, VirtualBase, SizesBase)
BROKEN = [
    found
    for found in globals().values()
    if isinstance(found, type) and issubclass(found, BASES) and found not in BASES
]
