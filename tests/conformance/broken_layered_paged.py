"""Paged allocation of layer groups with one bug each; its own `check` is silenced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.layered.paged import LayeredPaged
from tests.conformance.broken import Trusting
from tests.conformance.layer_groups import BYTE
from tests.conformance.matrix_layers import pool


def built(kind, **knobs):
    """Return what builds a policy, with the geometry of the suite that it is for."""

    def build(geometry):
        return kind.of(geometry, **knobs)

    build.__name__, build.geometry = kind.__name__, pool("sliding", BYTE)
    return build


class Paged(Trusting, LayeredPaged):
    pass


class FreesAWindowOneTokenEarly(Paged):
    """The token that is computed next still reads the last one of the page."""

    def _next_query(self, rows):
        return super()._next_query(rows) + 1


class WritesIntoAnothersPages(Paged):
    """Both layer groups take the first pool for theirs."""

    def slot_places(self, layer_group, slots):
        return super().slot_places(layer_group, slots) - self.pools._base[layer_group]


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


class GivesBackAtTheEndOfSeveralSteps(Paged):
    """What falls behind in the first of them as if in the last, so that others get it later."""

    def take_steps(self, rows, n):
        return self.grow(rows, n)


class ServesOneRowTooFew(Paged):
    def leading(self, rows):
        return max(super().leading(rows) - 1, 0)


PAGED = {"block_size": 4}
HONEST = (
    built(Paged, **PAGED),
    built(Paged, prefix_index="hash", **PAGED),
)
CAUGHT = (
    (built(FreesAWindowOneTokenEarly, **PAGED), "no hole"),
    (built(WritesIntoAnothersPages, groups="split", **PAGED), "single writer"),
    (built(ClaimsAHitWhoseWindowIsGone, prefix_index="hash", **PAGED), "honest hit"),
    (built(CountsTheExpiredAsInternal, **PAGED), "usage"),
    (built(CopiesOneLayerGroupOnly, **PAGED), "single writer"),
    (built(FreesBehindBeforeARefusal, **PAGED), "atomic"),
    (built(GivesBackAtTheEndOfSeveralSteps, **PAGED), "usage"),
    (built(ServesOneRowTooFew, **PAGED), "headroom"),
)
BROKEN = [factory for factory, _ in CAUGHT]
