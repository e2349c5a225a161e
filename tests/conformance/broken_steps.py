"""Allocators with one bug each in what they do before and beside a step; see `broken`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.base import EMPTY_GRANT, NO_MAPS, Grant, StepGrants
from tests.conformance.broken import VirtualBase


class StepBase(VirtualBase):
    """Throw-away: promises in admit and grow, maps in begin_step, maps ahead beside."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.background = self.eager = False
        self._later = []

    def _promise(self, grant):
        if grant is None or not (len(grant.maps) or len(grant.unmaps)):
            return grant
        self._later.append(Grant(unmaps=grant.unmaps, maps=grant.maps))
        return replace(grant, maps=NO_MAPS, unmaps=NO_MAPS)

    def admit(self, rows, prompt, demand):
        return self._promise(super().admit(rows, prompt, demand))

    def grow(self, rows, n=1):
        return self._promise(super().grow(rows, n))

    def quiet_steps(self, rows, at_most):
        return 0

    def begin_step(self):
        later, self._later = self._later, []
        before = EMPTY_GRANT
        if later:
            unmaps, maps = (
                np.concatenate([getattr(g, k) for g in later]) for k in ("unmaps", "maps")
            )
            before = Grant(unmaps=unmaps, maps=maps)
        rows = np.flatnonzero(self.active)
        ranges, lengths = self.range_of[rows], self.length[rows]
        full = self.pages.count[ranges] * self.geometry.page_tokens <= lengths + 1
        full &= lengths + 1 < self.geometry.max_len
        at = np.flatnonzero(full)[: len(self.pages.free)]
        beside = self.pages.extend(ranges[at], np.ones(len(at), dtype=np.int64), lengths[at])
        return StepGrants(before, Grant(maps=beside) if len(beside) else EMPTY_GRANT)


def also(table, rows):
    return np.concatenate([table, np.array(rows, dtype=np.int64).reshape(-1, 3)])


class MapsBesideWhatTheStepNeeds(StepBase):
    def begin_step(self):
        before, beside = super().begin_step()
        late = before.maps[-1:]
        return StepGrants(
            replace(before, maps=before.maps[:-1]),
            replace(beside, maps=also(beside.maps, late)),
        )


class UnmapsBesideWhatIsLive(StepBase):
    def begin_step(self):
        before, beside = super().begin_step()
        live = np.flatnonzero(self.active)
        if not len(live):
            return StepGrants(before, beside)
        vrange = int(self.range_of[live[-1]])
        last = (int(self.length[live[-1]]) - 1) // self.geometry.page_tokens
        gone = [vrange, last, int(self.pages.table[vrange, last])]
        return StepGrants(before, replace(beside, unmaps=also(beside.unmaps, gone)))


class MapsWhatIsUnmappedBeside(StepBase):
    """A page-group is mapped for the step while the thread has still to take it from elsewhere."""

    def begin_step(self):
        before, beside = super().begin_step()
        again = np.isin(before.unmaps[:, 2], before.maps[:, 2])
        places = before.maps[:, :2].tolist()
        again &= np.array([p not in places for p in before.unmaps[:, :2].tolist()], dtype=bool)
        return StepGrants(
            replace(before, unmaps=before.unmaps[~again]),
            replace(beside, unmaps=also(before.unmaps[again], beside.unmaps)),
        )


class BeginsAStepWithNone(StepBase):
    def begin_step(self):
        super().begin_step()


class CopiesBeforeAStep(StepBase):
    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(replace(before, copies=np.array([[0, 8, 1]])), beside)


class SwapsBesideAStep(StepBase):
    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(before, replace(beside, swaps_out=np.array([[0, 0, 1]])))


class MapsOnAndOn(StepBase):
    def quiet_steps(self, rows, at_most):
        return VirtualBase.quiet_steps(self, rows, at_most)

    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(
            before, replace(beside, maps=also(beside.maps, self.ranges.prepare_one()))
        )
