<<<<<<< HEAD
"""Managers of layer groups with one bug each, as `broken`: the suite alone must find it."""

from __future__ import annotations

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


class CopiesAStretchTooFew(RingBase):
    """A copy out of a ring stops at its end."""

    def _copies(self, sources, targets, slots):
        grant = super()._copies(sources, targets, slots)
        if len(grant.copies):
            grant.copies[1:, 2] = 1
        return grant


class WindowFreedEarly(JengaBase):
    """A page goes back while the token that is to be computed still reads its last slot."""

    def _forget(self, rows):
        self.tables.forget(rows, self.tables.behind(rows, self._next_query(rows) + 1))


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

=======
"""Policies for layer groups with one bug each; their own `check` is silenced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.layered.contiguous import LayeredContiguous
from allocators.layered.paged import LayeredPaged
from allocators.layered.virtual import LayeredVirtual
from allocators.layers import LayerGroup
from tests.conformance.layer_groups import geometry

PAGE = 64 << 10
#: layers of which a 64 KiB page holds 8 tokens
LARGE = (LayerGroup("full", 2, 4 * PAGE // 8), LayerGroup("sliding", 1, 2 * PAGE // 8, window=20))


def built(kind, names=("full", "sliding"), **knobs):
    """Return what builds a policy, with the geometry of the suite that it is for."""

    def build(pool):
        # Of a contiguous policy `of` knows which class it is, whoever asks.
        return (kind if issubclass(kind, LayeredContiguous) else kind.of)(pool, **knobs)

    build.__name__, build.geometry = kind.__name__, geometry(names)
    return build


class Trusting:
    def check(self):
        pass


class Paged(Trusting, LayeredPaged):
    pass


class FreesAWindowOneTokenEarly(Paged):
    """The token that is computed next still reads the last one of the page."""

    def _next_query(self, rows):
        return super()._next_query(rows) + 1


class WritesIntoAnothersPages(Paged):
    """Both layer groups take the first pool for theirs."""

    def slot_places(self, layer_group, slots):
        return super().slot_places(0, slots)


class ClaimsAHitWhoseWindowIsGone(Paged):
    """What the full layers still hold is taken for found."""

    def admit(self, rows, prompt, demand):
        held = 0
        if prompt.token_ids is not None and len(rows) == 1:
            keys, found = self.index._prompt_keys(prompt), self.index._page_of[0]
            t = self.geometry.page_tokens
            first = keys[t].first[: (prompt.tokens - 1) // t]
            held = next((i for i, key in enumerate(first) if key not in found), len(first)) * t
        grant = super().admit(rows, prompt, demand)
        if grant is None:
            return None
        return replace(grant, cached_tokens=max(grant.cached_tokens, held))


class CountsTheExpiredAsInternal(Paged):
    def usage(self, rows, finals, steps=1):
        usage = super().usage(rows, finals, steps)
        whole = usage.internal + usage.expired
        return replace(usage, internal=whole, expired=np.zeros_like(whole))


class CopiesOneLayerGroupOnly(Paged):
    def grow(self, rows, n=1):
        grant = super().grow(rows, n)
        if grant is None or not len(grant.copies):
            return grant
        return replace(grant, copies=grant.copies[grant.copies[:, 3] == 0])


class FreesBehindBeforeARefusal(Paged):
    """As vLLM does; here it leaves a trace."""

    def grow(self, rows, n=1):
        behind = self.tables.behind(rows, self._next_query(rows))
        grant = super().grow(rows, n)
        if grant is None:
            self.tables.forget(rows, behind)
        return grant


class WritesOverItsOwnWindow(Trusting, LayeredContiguous):
    """A ring takes any step, however long: its last tokens go where its first ones still read."""

    def _ring_room(self, rows):
        return int(self.geometry.max_len)


class UnmapsAWindowOneTokenEarly(Trusting, LayeredVirtual):
>>>>>>> kinds
    def _interval(self, queries, lengths):
        return super()._interval(queries + 1, lengths)


<<<<<<< HEAD
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


BASES = (RingBase, JengaBase, VirtualBase)
BROKEN = [
    found
    for found in globals().values()
    if isinstance(found, type) and issubclass(found, BASES) and found not in BASES
]
=======
class Virtual(Trusting, LayeredVirtual):
    pass


class Ring(Trusting, LayeredContiguous):
    pass


def large(kind, **knobs):
    build = built(kind, page_size="64KiB", **knobs)
    slot_bytes = sum(group.slot_bytes for group in LARGE)
    build.geometry = replace(
        build.geometry, layer_groups=LARGE, pool_bytes=400 * slot_bytes, host_tokens=0
    )
    return build


def chunks(kind, **knobs):
    """Of steps of 40 tokens at most, so that rings are shorter than sequences."""
    build = built(kind, **knobs)
    build.geometry = replace(build.geometry, step_tokens=40)
    return build


PAGED = {"block_size": 4}
HONEST = (
    built(Paged, **PAGED),
    built(Paged, prefix_index="hash", **PAGED),
    chunks(Ring, ring=True),
    large(Virtual),
)
CAUGHT = (
    (built(FreesAWindowOneTokenEarly, **PAGED), "no hole"),
    (built(WritesIntoAnothersPages, groups="split", **PAGED), "single writer"),
    (built(ClaimsAHitWhoseWindowIsGone, prefix_index="hash", **PAGED), "honest hit"),
    (built(CountsTheExpiredAsInternal, **PAGED), "usage"),
    (built(CopiesOneLayerGroupOnly, **PAGED), "single writer"),
    (built(FreesBehindBeforeARefusal, **PAGED), "atomic"),
    (chunks(WritesOverItsOwnWindow, ring=True), "no hole"),
    (large(UnmapsAWindowOneTokenEarly), "mapping"),
)
BROKEN = [factory for factory, _ in CAUGHT]
>>>>>>> kinds
