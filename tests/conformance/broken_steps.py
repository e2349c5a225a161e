"""Allocators with one bug each in what a step takes, before it and beside it; see `broken`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.base import EMPTY_GRANT, StepGrants
from allocators.virtual.ranges import Ranges
from tests.conformance.broken import VirtualBase


class CopyingBase(VirtualBase):
    """Page-groups are mapped in one place only."""

    def __init__(self, geometry):
        super().__init__(geometry, sharing="copy")


def also(grant, **tables):
    """Return a grant with these rows behind its own, table by table."""
    longer = {
        name: np.concatenate([getattr(grant, name), np.reshape(rows, (-1, 3)).astype(np.int64)])
        for name, rows in tables.items()
    }
    return replace(grant, **longer)


# -- cause and effect ----------------------------------------------------------------------------
class MapsBesideWhatTheStepNeeds(VirtualBase):
    """The last page-group that the step needs is left to the thread."""

    def begin_step(self):
        before, beside = super().begin_step()
        late = before.maps[-1:]
        return StepGrants(replace(before, maps=before.maps[:-1]), also(beside, maps=late))


class MapsAllBeside(VirtualBase):
    """What is promised counts as mapped ahead: no step ever waits for a map."""

    def begin_step(self):
        before, beside = super().begin_step()
        unmaps = np.concatenate([before.unmaps, beside.unmaps])
        maps = np.concatenate([before.maps, beside.maps])
        return StepGrants(EMPTY_GRANT, replace(beside, unmaps=unmaps, maps=maps))


class UnmapsBesideWhatIsLive(VirtualBase):
    """The thread reclaims one page-group too many: the last that a sequence has written."""

    def begin_step(self):
        before, beside = super().begin_step()
        live = np.flatnonzero(self.active)
        if not len(beside.unmaps) or not len(live):
            return StepGrants(before, beside)
        vrange = int(self.range_of[live[-1]])
        last = (int(self.length[live[-1]]) - 1) // self.geometry.page_tokens
        gone = [vrange, last, self.pages.table[vrange, last]]
        return StepGrants(before, also(beside, unmaps=gone))


class UsesAgainWhatIsUnmappedBeside(VirtualBase):
    """What makes room for a page-group of the step is unmapped by the thread."""

    def begin_step(self):
        before, beside = super().begin_step()
        places = before.maps[:, :2].tolist()
        late = np.isin(before.unmaps[:, 2], before.maps[:, 2])
        late &= np.array([place not in places for place in before.unmaps[:, :2].tolist()], bool)
        return StepGrants(
            replace(before, unmaps=before.unmaps[~late]),
            replace(beside, unmaps=np.concatenate([before.unmaps[late], beside.unmaps])),
        )


class UsesAgainWithoutAliases(UsesAgainWhatIsUnmappedBeside, CopyingBase):
    """The same where page-groups are never shared."""


# -- promises ------------------------------------------------------------------------------------
class UnmapsWhatIsPromised(VirtualBase):
    """What an idle range has mapped when it is let is unmapped for others of the same step."""

    class Ranges(Ranges):
        def _let(self, vrange, tokens):
            super()._let(vrange, tokens)
            self.complete[vrange] = tokens > 0 and not super().lacking()[vrange]

        def lacking(self):
            return np.where(self.complete, 0, super().lacking())

        def reclaim(self, wanted, lengths=None):
            lengths = self.length if lengths is None else lengths
            return super().reclaim(wanted, np.where(self.complete, 0, lengths))

    def __init__(self, geometry):
        super().__init__(geometry)
        self.ranges.__class__ = self.Ranges
        self.ranges.complete = np.zeros(geometry.max_seqs, dtype=bool)

    def begin_step(self):
        grants = super().begin_step()
        self.ranges.complete[:] = False
        return grants


class ForgetsAPromise(VirtualBase):
    """A page-group is noted as mapped, and nobody is told to map it."""

    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(replace(before, maps=before.maps[:-1]), beside)


class PromisesTheSameTwice(VirtualBase):
    """What one call of a step takes is at hand for the next call as well."""

    class Ranges(Ranges):
        @property
        def available(self):
            return super().available + int(self.lacking().sum())

    def __init__(self, geometry):
        super().__init__(geometry)
        self.ranges.__class__ = self.Ranges


# -- quiet steps ---------------------------------------------------------------------------------
class MapsOnAndOn(VirtualBase):
    """An idle range is given a page-group at every step, quiet or not."""

    def begin_step(self):
        before, beside = super().begin_step()
        pages, idle = self.pages, np.flatnonzero(~np.isin(np.arange(12), self.range_of))
        idle = idle[pages.count[idle] < pages.table.shape[1]][:1]
        if not len(idle) or not len(pages.free):
            return StepGrants(before, beside)
        return StepGrants(before, also(beside, maps=self.ranges.extend(idle, np.array([1]))))


class LooksAheadInQuietSteps(VirtualBase):
    """Page-groups that the thread maps for the tokens to come are not taken for an operation."""

    def _tokens_until_ahead(self, growing):
        return self.geometry.max_len


# -- answers -------------------------------------------------------------------------------------
class BeginsAStepWithNone(VirtualBase):
    def begin_step(self):
        super().begin_step()


class BeginsAStepWithOneGrant(VirtualBase):
    def begin_step(self):
        return super().begin_step().before


class CopiesBeforeAStep(VirtualBase):
    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(also(before, copies=[0, 8, 1]), beside)


class SwapsBesideAStep(VirtualBase):
    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(before, also(beside, swaps_out=[0, 0, 1]))


BASES = (VirtualBase, CopyingBase)
BROKEN = [
    found
    for found in globals().values()
    if isinstance(found, type) and issubclass(found, BASES) and found not in BASES
]
