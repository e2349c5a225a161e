"""The virtual allocator: what it admits, how sequences grow and end, and what a step maps.

While a step is planned page-groups are only promised: a range is let and its length set.
`begin_step` maps what is promised, one range after the other, as vAttention's `step` does, and then
asks the background thread what it does beside the step (`background`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    NO_STEP_GRANTS,
    Allocator,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    StepGrants,
    is_number,
    one_of,
)
from allocators.grants import join
from allocators.growth import bisect_headroom
from allocators.page_table import ceil_div
from allocators.rules import virtual as rules
from allocators.rules.answers import ask_of
from allocators.rules.mapping import VirtualArrays
from allocators.virtual.background import Background, CodeBackground, PaperBackground
from allocators.virtual.shape import RangeShape, check_window_page
from allocators.virtual.sharing import RangeHolder

RULES = ("vattention", "paper")
ADMISSIONS = ("needed", "vattention")
#: share of the page-groups that admission leaves free beside others (vAttentionBlockSpaceManager)
CODE_WATERMARK = 0.01
#: share that the background thread keeps free by the paper (section 6.1.2)
PAPER_KEEP_FREE = 0.1


class Virtual(RangeHolder):
    """Page-groups of `page_size` bytes a tensor.

    `rules`, of the memory manager: `vattention` follows its code, `paper` its paper (both stated in
    docs/virtual.md).  The paper alone has `eager` (one idle range is kept ready) and `reclaim_free`
    (the share of page-groups that the thread keeps free).  `admission`: a sequence is let in and
    grows if there is what it needs, as with every other policy, or if vAttention's scheduler would
    let it, which keeps room.  `deferred`: an ended sequence's range keeps its page-groups for the
    next one.  `background`: a thread maps ahead while a step computes.
    """

    @classmethod
    def of(cls, geometry: Geometry, **knobs: Any) -> Allocator:
        if not geometry.layer_groups:
            return cls(geometry, **knobs)
        if cls is not Virtual:
            return super().of(geometry)  # a derived policy's rules are those of a uniform model
        from allocators.layered.virtual import LayeredVirtual  # it takes names from this file

        return LayeredVirtual.of(geometry, **knobs)

    def __init__(
        self,
        geometry: Geometry,
        *,
        rules: str = "vattention",
        admission: str = "needed",
        page_size: str = "2MiB",
        window_page_size: str | None = None,
        layout: str = "per_layer",
        sharing: str = "alias",
        deferred: bool = True,
        background: bool = True,
        eager: bool | None = None,
        reclaim_free: float | None = None,
        prefix_index: str = "none",
    ) -> None:
        check_knobs(rules, admission, sharing, deferred, background, eager, reclaim_free)
        check_window_page(window_page_size)  # of no effect: it is for layer groups
        shape = RangeShape.of(geometry, page_size, layout, dense=sharing == "copy")
        super().__init__(geometry, shape, sharing, prefix_index)
        self.keeps_room = admission == "vattention"
        self.thread: Background
        if rules == "vattention":
            self.thread = CodeBackground(self.ranges, deferred, background)
        else:
            share = PAPER_KEEP_FREE if reclaim_free is None else reclaim_free
            keep_free = int(share * shape.num_page_groups) if deferred else 0
            ready = True if eager is None else eager
            self.thread = PaperBackground(self.ranges, deferred, background, ready, keep_free)
        self.watermark = int(CODE_WATERMARK * shape.num_page_groups)
        # Of the step that is being planned: page-groups that growth has taken, and that the next
        # token of whoever grew will take, less those of the preempted.
        self._grown = self._next = 0

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        t, sequences, private = self.geometry.page_tokens, len(rows), demand.private_tokens
        needed = rules.asked(ask_of(prompt, demand), sequences, t, self.alias)
        if needed > self.pages.num_pages:
            raise NeverFits(
                f"{needed} page-groups of {t} tokens are needed, the pool has "
                f"{self.pages.num_pages}"
            )
        found = self.index.find(prompt)
        if len(found):  # those of them that are cached will not be available any more
            needed -= len(found) - self.ranges.cached_of(found)
        kept_free = 0
        if self.keeps_room and self.active.any():
            kept_free = max(0, self.watermark + self._next - self._grown)
        if not self.ranges.has(needed + kept_free):
            return None
        self._admitted(rows)
        steps = [self._open(rows[:1], prompt.tokens, found)]
        self.index.admitted(int(self.range_of[rows[0]]), prompt, found, alone=sequences == 1)
        if sequences > 1:
            steps.append(self._continue(int(rows[0]), rows[1:], diverging=private > 0))
        if private:
            steps.append(self._diverge(rows, private))
        hit = len(found) * t
        return replace(join(steps), cached_tokens=hit) if hit else join(steps)

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        lengths, ranges = self.length[rows], self.range_of[rows]
        copiers = self.pages.to_copy(ranges, lengths)
        if not self._may_grow(rows, lengths, n, len(copiers)):
            return None
        if self.keeps_room:
            self._grown += int(self._more(lengths, n).sum())
            self._next += int(self._more(lengths + 1, n).sum())
        steps = []
        if len(copiers):
            steps.append(self._copy_on_write(ranges[copiers], lengths[copiers]))
        after = lengths + n
        self.length[rows] = self.ranges.length[ranges] = after
        if self.has_prefix_index:
            steps += self.ranges.settle(ranges)
            self.index.grown(ranges, lengths, after)
        return join(steps)

    def _may_grow(self, rows: IntArray, lengths: IntArray, n: int, copies: int) -> bool:
        """Say whether these rows may each grow by `n` slots, and copy so many page-groups.

        vAttention's scheduler asks, sequence by sequence, that one page-group be free behind what
        it has promised for the *next* tokens of those before (can_append_slot, append_slot).  A
        request that is alone is asked for no more than it needs, or it would be preempted for ever.
        """
        more = int(self._more(lengths, n).sum()) + copies
        if more and not self.ranges.has(more):
            return False
        if not self.keeps_room:
            return True
        live = self._admission[self.active]
        if (live == live[0]).all():
            return True
        before = int(self._more(lengths + 1, n)[:-1].sum())
        return self.available + self._grown - self._next - before > 0

    def _left_to_grow(self) -> int:
        return self.available + min(0, self._grown - self._next)

    def _more(self, lengths: IntArray, n: int) -> IntArray:
        """Return how many page-groups more than for these lengths `n` more slots need, [rows]."""
        t, last = self.geometry.page_tokens, lengths - 1
        return (last + n) // t - last // t

    def headroom(self, rows: IntArray) -> int:
        lengths = self.length[rows]
        copies = len(self.pages.to_copy(self.range_of[rows], lengths))
        return bisect_headroom(
            lambda n: self._may_grow(rows, lengths, n, copies),
            self.geometry.max_len - int(lengths.max()),
        )

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        lengths, ranges = self.length[rows], self.range_of[rows]
        if self._grown or self._next or len(self.pages.to_copy(ranges, lengths)):
            return 0
        if not self._is_settled() or not self._may_grow(rows, lengths, 0, 0):
            return 0
        t = self.geometry.page_tokens
        room = int((ceil_div(lengths, t) * t - lengths).min())
        if self.keeps_room:
            room -= 1  # there the next token takes a page-group, and refuses others one
        room = min(room, self._tokens_until_ahead(ranges))
        return max(0, min(at_most, room))

    def _tokens_until_ahead(self, growing: IntArray) -> int:
        """Return by how many tokens these ranges may grow before the thread maps for one of them.

        0 if it maps at once, for one of them or for a live range that does not grow.
        """
        look = self.thread.look_ahead_tokens
        if not len(self.pages.free):
            look = min(look, 1 if self.available else 0)  # what it can get it maps for the next
        live = self.ranges.length > 0
        live &= self.pages.count < self.range_pages
        spare = self.pages.count * self.geometry.page_tokens - self.ranges.length - look
        grows = np.zeros_like(live)
        grows[growing] = True
        if (spare[live & ~grows] < 0).any():
            return 0
        return int(spare[live & grows].min(initial=self.geometry.max_len))

    # -- a step ------------------------------------------------------------------------------
    def begin_step(self) -> StepGrants:
        self._grown = self._next = 0
        before, beside = self.thread.step()
        before = [grant for grant in before if not grant.is_empty]
        beside = [grant for grant in beside if not grant.is_empty]
        return StepGrants(join(before), join(beside)) if before or beside else NO_STEP_GRANTS

    def _is_settled(self) -> bool:
        """Say whether `begin_step` has nothing to do but to look ahead for those that grow."""
        return not self.ranges.lacking().any() and self.thread.is_idle()

    def truncate(self, row: int, n: int) -> Grant:
        vrange = int(self.range_of[row])
        self.length[row] -= n
        self.ranges.cut(vrange, n)
        self.index.truncated(vrange, int(self.length[row]))
        keep = -(-int(self.length[row]) // self.geometry.page_tokens)
        # Exclusive page-groups stay mapped for the tokens to come; shared ones cannot be written.
        behind = self.pages.table[vrange, keep : int(self.pages.count[vrange])]
        shared = np.flatnonzero(self.pages.ref[behind] > 1)
        if not len(shared):
            return EMPTY_GRANT
        return Grant(unmaps=self.ranges.drop(vrange, keep=keep + int(shared[0])))

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        unmaps, ranges = [], self.range_of[rows]
        for row, vrange in zip(rows.tolist(), ranges.tolist(), strict=True):
            unmapped = self.ranges.retire(vrange)
            if len(unmapped):
                unmaps.append(unmapped)
            self.range_of[row], self.length[row], self.active[row] = -1, 0, False
        self.index.released(ranges)
        return Grant(unmaps=np.concatenate(unmaps)) if unmaps else EMPTY_GRANT

    def preempt(self, rows: IntArray) -> Grant:
        if self.keeps_room:
            # vAttention's scheduler takes them to be as long as they were about to become.
            self._next -= int(self._more(self.length[rows], 1).sum())
        return self.release(rows)

    # -- views -------------------------------------------------------------------------------
    def arrays(self) -> VirtualArrays | None:
        own_rules = isinstance(self.thread, CodeBackground) and not self.keeps_room
        if type(self) is not Virtual or self.has_prefix_index or not own_rules:
            return None
        return VirtualArrays(
            self.pages.arrays,
            self.length,
            self.active,
            self.range_of,
            self.ranges.length,
            self.ranges.told,
            self.alias,
            self.thread.deferred,
            self.thread.threaded,
            self.shape.tail_tokens,
            self.shape.page_group_bytes,
            self.pages_per_group * self.geometry.ranks,
            self.geometry.bytes_per_token,
            self.geometry.capacity_bytes,
        )

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free, cached = len(self.pages.free), self.ranges.cached
        return self.pages.num_pages - free - cached, cached, free

    def check(self) -> None:
        self.pages.check()
        self.host.check()
        self.ranges.check(self.range_of[self.active], self.length[self.active])
        self.index.check(self.ranges.length)
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"


def check_knobs(
    rules: str,
    admission: str,
    sharing: str,
    deferred: bool,
    background: bool,
    eager: bool | None,
    reclaim_free: float | None,
) -> None:
    """Raise ValueError for a value that no virtual policy takes, with layer groups or without."""
    one_of("rules", rules, RULES)
    one_of("admission", admission, ADMISSIONS)
    one_of("sharing", sharing, ("alias", "copy"))
    for name, value in (("deferred", deferred), ("background", background)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")
    if eager is not None and not isinstance(eager, bool):
        raise ValueError(f"eager must be true, false or null, got {eager!r}")
    if reclaim_free is not None and not (is_number(reclaim_free) and 0.0 <= reclaim_free <= 1.0):
        raise ValueError(f"reclaim_free must be null or from 0 to 1, got {reclaim_free!r}")
    for name, value in (("eager", eager), ("reclaim_free", reclaim_free)):
        if rules != "paper" and value is not None:
            raise ValueError(f"{name} needs rules=paper: vAttention's code has no such rule")
