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
    def _interval(self, queries, lengths):
        return super()._interval(queries + 1, lengths)


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
