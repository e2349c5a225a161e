"""Allocators with one bug each.  Their own `check` is silenced: the suite alone must find it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    NO_COPIES,
    NO_MAPS,
    Grant,
    NeverFits,
    StepGrants,
    Unsupported,
)
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual


class Trusting:
    def check(self):
        pass


class PagedBase(Trusting, Paged):
    def __init__(self, geometry):
        super().__init__(geometry, block_size=8)


class VirtualBase(Trusting, Virtual):
    def __init__(self, geometry, **knobs):
        super().__init__(geometry, page_size="64KiB", **knobs)


class DenseBase(Trusting, Virtual):
    """Tokens run over page ends: 13 page-groups hold 7 whole tokens each, and 5 more."""

    def __init__(self, geometry):
        super().__init__(replace(geometry, head_dim=518), page_size="64KiB", sharing="copy")


class ContiguousBase(Trusting, Contiguous):
    def __init__(self, geometry):
        super().__init__(geometry, reservation="grow", placement="first_fit")


class LeaksABlockARelease(PagedBase):
    def release(self, rows):
        super().release(rows)
        self.pages.free.take(min(1, len(self.pages.free)))
        return EMPTY_GRANT


class KeepsABlockARelease(LeaksABlockARelease):
    """The same leak, accounted for as fragmentation."""

    def usage(self, rows, finals, steps=1):
        usage = super().usage(rows, finals, steps)
        lost = int(usage.pages[-1]) - np.count_nonzero(self.pages.ref)
        lost *= 8 * self.geometry.bytes_per_token
        return replace(usage, token=usage.token - lost, internal=usage.internal + lost)


class FreesTwice(PagedBase):
    def release(self, rows):
        pages = self.pages.table[rows[:1], :1].ravel()
        super().release(rows)
        if len(self.pages.free) < self.pages.num_pages:
            self.pages.free.give(pages)
        return EMPTY_GRANT


class FreesWhatOthersHold(PagedBase):
    """Release ignores reference counts."""

    def release(self, rows):
        held = self.pages.table[rows]
        self.pages.ref[held[held >= 0]] = 1
        return super().release(rows)


class NeverCopiesOnWrite(PagedBase):
    def grow(self, rows, n=1):
        self.pages.to_copy = lambda rows, lengths: np.empty(0, dtype=np.int64)
        return super().grow(rows, n)


class ForgetsTheCopy(PagedBase):
    """The block is replaced, but nobody is told to copy its contents."""

    def grow(self, rows, n=1):
        grant = super().grow(rows, n)
        return grant and EMPTY_GRANT


class CopiesOneSlotTooFew(PagedBase):
    def grow(self, rows, n=1):
        grant = super().grow(rows, n)
        if grant is None or not len(grant.copies):
            return grant
        short = grant.copies - [0, 0, 1]
        return replace(grant, copies=short[short[:, 2] > 0])


class CopiesForTheLastHolderToo(PagedBase):
    """The last writer of a shared block copies as well, so the block is lost."""

    def grow(self, rows, n=1):
        def everyone(rows, lengths):
            partial = lengths % 8 != 0
            pages = self.pages.table[rows, lengths // 8 - ~partial]
            return np.flatnonzero(partial & (self.pages.ref[pages] > 1))

        self.pages.to_copy = everyone
        return super().grow(rows, n)


class CountsOneHolderTooFew(PagedBase):
    def fork(self, parent, children, demand):
        grant = super().fork(parent, children, demand)
        self.pages.ref[self.pages.table[parent, 0]] -= 1
        return grant


class ParentGivesItsBlockAway(PagedBase):
    """Of a group with private tokens the last child gets the block the prompt is written to."""

    def admit(self, rows, prompt, demand):
        private = demand.private_tokens
        if not private:
            return super().admit(rows, prompt, demand)
        before = len(self.pages.free)
        grant = super().admit(rows, prompt, demand)
        if grant is not None and len(grant.copies) and before:
            row, last, column = int(rows[0]), int(rows[-1]), prompt.tokens // 8
            table = self.pages.table
            table[row, column], table[last, column] = table[last, column], table[row, column]
        return grant


class RefusalLengthens(PagedBase):
    def grow(self, rows, n=1):
        self.length[rows] += n
        if self.headroom(rows) <= 0:
            return None
        self.length[rows] -= n
        return super().grow(rows, n)


class RefusalReordersTheFreeList(PagedBase):
    """A refused admission takes blocks and gives them back: nothing shows until the next grant."""

    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        if grant is None:
            self.pages.free.give(self.pages.free.take(len(self.pages.free) // 2))
        return grant


class GrowsPartOfTheBatch(PagedBase):
    """Serves the first half even if the whole batch does not fit."""

    def grow(self, rows, n=1):
        grant = super().grow(rows, n)
        if grant is None and len(rows) > 1:
            super().grow(rows[: len(rows) // 2], n)
        return grant


class PromisesOneTooMany(PagedBase):
    def headroom(self, rows):
        most = self.geometry.max_len - int(self.length[rows].max())
        return min(super().headroom(rows) + 1, most)


class PromisesOneTooFew(PagedBase):
    def headroom(self, rows):
        return max(super().headroom(rows) - 1, 0)


class ReassignsRowByRow(PagedBase):
    """A row that continues from one already replaced gets the wrong parent."""

    def reassign(self, rows, parents):
        for i in range(len(rows)):
            super().reassign(rows[i : i + 1], parents[i : i + 1])
        return EMPTY_GRANT


class CopiesRowByRow(ContiguousBase):
    """Contiguous beam step that reads a parent after it was overwritten."""

    def reassign(self, rows, parents):
        source = dict(zip(rows.tolist(), rows.tolist(), strict=True))
        for row, parent in zip(rows.tolist(), parents.tolist(), strict=True):
            source[row] = source[parent]
        return super().reassign(rows, np.array([source[row] for row in rows.tolist()]))


class PicksBlocksAtRandom(PagedBase):
    def grow(self, rows, n=1):
        pages = self.pages.free.take(len(self.pages.free))
        self.pages.free.give(np.array(random.sample(pages.tolist(), len(pages)), dtype=np.int64))
        return super().grow(rows, n)


class TruncatesABlockTooMany(PagedBase):
    def truncate(self, row, n):
        super().truncate(row, n)
        self.pages.drop(row, keep=max(1, int(self.pages.count[row]) - 1))
        return EMPTY_GRANT


class LiesAboutQuietSteps(PagedBase):
    def quiet_steps(self, rows, at_most):
        return at_most


class MapsDuringQuietSteps(VirtualBase):
    def quiet_steps(self, rows, at_most):
        return self.headroom(rows) if self.headroom(rows) <= at_most else at_most


class AccountsOneByteTooMany(PagedBase):
    def usage(self, rows, finals, steps=1):
        usage = super().usage(rows, finals, steps)
        return replace(usage, internal=usage.internal + 1)


class CountsSharedTokensTwice(PagedBase):
    def usage(self, rows, finals, steps=1):
        usage = super().usage(rows, finals, steps)
        token = np.minimum(
            self.length[rows].sum() * self.geometry.bytes_per_token, usage.token + usage.free
        )
        return replace(usage, token=token, free=usage.free - (token - usage.token))


class AccountsQuietStepsAsTheLast(PagedBase):
    def usage(self, rows, finals, steps=1):
        usage = super().usage(rows, finals, steps)
        columns = {name: getattr(usage, name)[-1:].repeat(steps) for name in usage.__slots__}
        return replace(usage, **columns)


class GrantsBeyondThePool(ContiguousBase):
    def __init__(self, geometry):
        super().__init__(geometry)
        placement = type(self.placement)(geometry.capacity_tokens + 64)
        placement.free = geometry.capacity_tokens
        self.placement = placement


class OverlapsExtents(ContiguousBase):
    """An extent is placed one slot too early."""

    def _hold(self, row, extent, slots):
        super()._hold(row, extent, slots)
        self.start[row] = max(0, extent.start - 1)


class ForgetsTheOldExtent(ContiguousBase):
    """A sequence that moves keeps its old extent for ever."""

    def grow(self, rows, n=1):
        give, self.placement.give = self.placement.give, lambda extent: None
        try:
            return super().grow(rows, n)
        finally:
            self.placement.give = give


class CannotDoALongPrompt(PagedBase):
    """A request is refused, or it never fits; there is nothing about it that cannot be done."""

    def admit(self, rows, prompt, demand):
        if prompt.tokens > 40:
            raise Unsupported("prompts have 40 tokens at most")
        return super().admit(rows, prompt, demand)


class NeverSaysNever(PagedBase):
    """A request that can never fit waits for ever."""

    def admit(self, rows, prompt, demand):
        try:
            return super().admit(rows, prompt, demand)
        except NeverFits:
            return None


class SaysNeverTooSoon(PagedBase):
    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        if grant is None:
            raise NeverFits("no block is free")
        return grant


class ForgetsToUnmap(VirtualBase):
    def begin_step(self):
        before, beside = super().begin_step()
        return StepGrants(replace(before, unmaps=NO_MAPS), beside)


class ForgetsToMapTheCopy(VirtualBase):
    """Copy-on-write copies, but the range still shows the shared page-group."""

    def _copy_on_write(self, ranges, lengths):
        return Grant(copies=super()._copy_on_write(ranges, lengths).copies)


class RemapsInOneGrant(VirtualBase):
    """Maps a shared page-group and its copy in the same place by one grant."""

    def _diverge(self, rows, n):
        column = int(self.length[rows[0]]) // self.geometry.page_tokens
        page = int(self.pages.table[self.range_of[rows[0]], column])
        grant = super()._diverge(rows, n)
        extra = [[int(self.range_of[row]), column, page] for row in rows[1:].tolist()]
        if not len(grant.copies) or not extra:
            return grant
        return replace(grant, maps=np.concatenate([grant.maps, extra]))


class ForgetsToCopyTheFork(VirtualBase):
    def fork(self, parent, children, demand):
        self.alias = False
        try:
            grant = super().fork(parent, children, demand)
        finally:
            self.alias = True
        return grant and replace(grant, copies=NO_COPIES)


class ForgetsWhatRunsOverPageEnds(DenseBase):
    """A copy has the whole tokens of each page-group, and none of those behind them."""

    def _copies(self, source, targets, length):
        whole = self.range_pages * self.geometry.page_tokens
        return super()._copies(source, targets, min(length, whole))


class KeepsPagesMappedAndDenies(VirtualBase):
    """Cached page-groups are reported as free."""

    def balance(self):
        active, cached, free = super().balance()
        return active, 0, free + cached


class ClaimsAPrefixHit(PagedBase):
    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        if grant is None or prompt.token_ids is None:
            return grant
        return replace(grant, cached_tokens=min(8, prompt.tokens - 1))


class ClaimsTheWholePrompt(PagedBase):
    def admit(self, rows, prompt, demand):
        grant = super().admit(rows, prompt, demand)
        return grant and replace(grant, cached_tokens=prompt.tokens)


BASES = (PagedBase, VirtualBase, DenseBase, ContiguousBase)
BROKEN = [
    found
    for found in globals().values()
    if isinstance(found, type) and issubclass(found, BASES) and found not in BASES
]
