"""Allocators with one bug each in what they move to host memory and back; see `broken`."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from allocators.base import NO_MAPS, NO_SWAPS, Allocator, StepGrants, Unsupported
from allocators.host import HostPages
from allocators.paged import Paged
from allocators.prefix.offload import OffloadIndex
from tests.conformance.broken import ContiguousBase, PagedBase, Trusting, VirtualBase


class CannotSwap(PagedBase):
    """No bug: a policy need not swap."""

    suspend, resume = Allocator.suspend, Allocator.resume


class OffloadBase(Trusting, Paged):
    def __init__(self, geometry):
        super().__init__(geometry, block_size=4, prefix_index="hash", offload=True)


# -- what is moved -------------------------------------------------------------------------------
class RestoresTheWrongPages(PagedBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is None:
            return None
        device, host, n = grant.swaps_in.T
        return replace(grant, swaps_in=np.column_stack([device, np.roll(host, 1), n]))


class ForgetsToSwapOut(PagedBase):
    def suspend(self, rows, ticket):
        grant = super().suspend(rows, ticket)
        return grant and replace(grant, swaps_out=NO_SWAPS)


class ForgetsToSwapIn(VirtualBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        return grant and replace(grant, swaps_in=NO_SWAPS)


class SwapsOutFullBlocksOnly(PagedBase):
    def suspend(self, rows, ticket):
        last = [self.addresses(row)[-1] // 8 * 8 for row in rows.tolist() if self.length[row] % 8]
        grant = super().suspend(rows, ticket)
        if grant is None:
            return None
        full = ~np.isin(grant.swaps_out[:, 0], last)
        return replace(grant, swaps_out=grant.swaps_out[full])


class SwapsInOneSlotTooFew(ContiguousBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is None:
            return None
        short = grant.swaps_in - [0, 0, 1]
        return replace(grant, swaps_in=short[short[:, 2] > 0])


class SwapsOutToOnePlace(PagedBase):
    def suspend(self, rows, ticket):
        grant = super().suspend(rows, ticket)
        if grant is None:
            return None
        swaps = grant.swaps_out.copy()
        swaps[:, 1] = swaps[0, 1]
        return replace(grant, swaps_out=swaps)


class SwapsBeyondHostMemory(PagedBase):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.host = HostPages(self.host.num_pages + 4)


# -- device memory -------------------------------------------------------------------------------
class ForgetsToUnmapWhatMakesRoom(VirtualBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        return grant and replace(grant, unmaps=NO_MAPS)


class KeepsTheBlocksItSuspends(PagedBase):
    def suspend(self, rows, ticket):
        kept = self.pages.table[rows[0], 0]
        self.pages.ref[kept] += 1
        grant = super().suspend(rows, ticket)
        if grant is None:
            self.pages.ref[kept] -= 1
        return grant


class MapsTooLateForTheSwap(VirtualBase):
    """What is swapped in has to be mapped by the same grant, not when the step begins."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.late = NO_MAPS

    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is None:
            return None
        self.late = np.concatenate([self.late, grant.maps])
        return replace(grant, maps=NO_MAPS)

    def begin_step(self):
        late, self.late = self.late, NO_MAPS
        before, beside = super().begin_step()
        return StepGrants(replace(before, maps=np.concatenate([late, before.maps])), beside)


class ForgetsHowManyShareIt(PagedBase):
    """A block that several of a group hold comes back with a reference count of one."""

    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is not None:
            held = self.pages.table[rows]
            self.pages.ref[held[held >= 0]] = 1
        return grant


class ResumesOneTokenShort(PagedBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is not None:
            self.length[rows] -= self.length[rows] > 1
        return grant


class ResumesInTheOrderOfRows(PagedBase):
    """The rows are sorted, so the sequences of a group change places."""

    def resume(self, rows, ticket):
        return super().resume(np.sort(rows), ticket)


# -- host memory ---------------------------------------------------------------------------------
class GivesHostPagesBackAtOnce(PagedBase):
    """The next suspension may write where a ticket is still kept."""

    def suspend(self, rows, ticket):
        grant = super().suspend(rows, ticket)
        if grant is not None:
            self.host._free.give(self.host._saved[ticket].pages)
        return grant

    def resume(self, rows, ticket):
        self.host._free.give = lambda pages: None
        try:
            return super().resume(rows, ticket)
        finally:
            del self.host._free.give


class LosesAHostPageAResume(PagedBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is not None:
            self.host._free.take(1)
        return grant


class PicksHostPagesAtRandom(PagedBase):
    def suspend(self, rows, ticket):
        free = self.host._free
        pages = free.take(len(free))
        free.give(np.array(random.sample(pages.tolist(), len(pages)), dtype=np.int64))
        return super().suspend(rows, ticket)


# -- refusals ------------------------------------------------------------------------------------
class RefusedSuspendReleases(PagedBase):
    def suspend(self, rows, ticket):
        grant = super().suspend(rows, ticket)
        if grant is None:
            self.release(rows)
        return grant


class RefusedSuspendLosesAHostPage(PagedBase):
    def suspend(self, rows, ticket):
        grant = super().suspend(rows, ticket)
        if grant is None and len(self.host._free):
            self.host._free.take(1)
        return grant


class RefusedResumeTakesABlock(PagedBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is None and len(self.pages.free):
            self.pages.free.take(1)
        return grant


class RefusedResumeReordersTheFreeList(PagedBase):
    def resume(self, rows, ticket):
        grant = super().resume(rows, ticket)
        if grant is None:
            self.pages.free.give(self.pages.free.take(len(self.pages.free) // 2))
        return grant


class RefusedResumeDropsTheTicket(PagedBase):
    def resume(self, rows, ticket):
        if ticket not in self.host._saved:
            return None
        grant = super().resume(rows, ticket)
        if grant is None:
            self.host._free.give(self.host._saved.pop(ticket).pages)
        return grant


class NeverTakesALargeOneBack(PagedBase):
    def resume(self, rows, ticket):
        return None if self.host.pages_of(ticket) > 6 else super().resume(rows, ticket)


class LetsInWhatCannotGrow(PagedBase):
    def resume(self, rows, ticket):
        self.active[:], active = False, self.active.copy()
        grant = super().resume(rows, ticket)
        self.active |= active
        return grant


class CannotTakeBackWhatItSuspends(PagedBase):
    def resume(self, rows, ticket):
        raise Unsupported("there is no way back")


class FindsOutTooLateThatItCannotSwap(PagedBase):
    def suspend(self, rows, ticket):
        self.release(rows)
        raise Unsupported("there is no host memory after all")


# -- a prefix cache in host memory ---------------------------------------------------------------
class FetchesTheWrongBlocks(OffloadBase):
    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        if grant is None or not len(grant.swaps_in):
            return grant
        device, host, n = grant.swaps_in.T
        other = (host + 4) % (self.host.num_pages * 4)
        return replace(grant, swaps_in=np.column_stack([device, other, n]))


class ForgetsToFetch(OffloadBase):
    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        return grant and replace(grant, swaps_in=NO_SWAPS)


class ForgetsToSave(OffloadBase):
    def grow(self, rows, n=1):
        grant = super().grow(rows, n)
        return grant and replace(grant, swaps_out=NO_SWAPS)


class FetchesOneBlockTooFew(OffloadBase):
    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        return grant and replace(grant, swaps_in=grant.swaps_in[:-1])


class SavesOverWhatItFetches(OffloadBase):
    """The host pages of a hit are free before the evictions that make room for it."""

    class Index(OffloadIndex):
        def claim(self, prompt, found, blocks):
            super().claim(prompt, found, blocks)
            self._tier.give(np.array(self._claimed, dtype=np.int64))

        def moved(self, grant):
            give, self._tier.give = self._tier.give, lambda pages: None
            try:
                return super().moved(grant)
            finally:
                self._tier.give = give
                del self._tier.give

    def __init__(self, geometry):
        super().__init__(replace(geometry, host_tokens=40))
        self.index.__class__ = self.Index


class SavesInQuietSteps(OffloadBase):
    def __init__(self, geometry):
        super().__init__(geometry)
        self.pages.free.quiet_evictions = True


class KnowsWhatAForkWillHold(OffloadBase):
    """After a fork the prompt's tokens do not tell any more what comes."""

    def fork(self, parent, children, demand):
        kept = self.index._known[parent], self.index._done[parent], self.index._keys[parent]
        grant = super().fork(parent, children, demand)
        self.index._known[parent], self.index._done[parent], self.index._keys[parent] = kept
        return grant


class KeepsTheKeysOfARollBack(OffloadBase):
    class Index(OffloadIndex):
        def truncated(self, row, length):
            pass

    def __init__(self, geometry):
        super().__init__(geometry)
        self.index.__class__ = self.Index


BASES = (PagedBase, VirtualBase, ContiguousBase, OffloadBase)
HONEST = (*BASES, CannotSwap)
BROKEN = [
    found
    for found in globals().values()
    if isinstance(found, type) and issubclass(found, BASES) and found not in HONEST
]
