"""Virtual ranges for a model with layer groups: page-groups of each, mapped as its kind needs them.

    row 3, full      [ 7 | 2 | 9 | 4 | + ]      needed up to its length; + mapped ahead
    row 3, sliding   [ . | x | 5 | 8 | + ]      . unmapped; x behind the window, still mapped

What a layer group needs of a sequence is an interval of page-groups: from the one that holds what
the present step reads first to that of its last slot.  All else that is mapped is *excess*, as in
`allocators.virtual`: it is available, for it can be unmapped for others at any time.  Page-groups
behind a window are excess that no one will read; they are unmapped first.

The rules are those of vAttention's code, `allocators.virtual`, carried over: a step maps what is
promised (`begin_step`), and a thread beside it maps what the next tokens need.  A sequence's range
is that of its row.  vAttention itself has no windows: what is behind one is treated here as that
code treats what an ended sequence leaves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    NO_STEP_GRANTS,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    StepGrants,
    Strided,
    Unsupported,
    Usage,
    one_of,
)
from allocators.growth import bisect_headroom
from allocators.layered.grants import join
from allocators.layered.virtual_ranges import LayeredRanges
from allocators.layered.virtual_usage import account
from allocators.rules.mapping import LOOK_AHEAD_TOKENS, MOST_AHEAD
from allocators.virtual.policy import check_knobs
from allocators.virtual.prefix import INDEXES

#: settings of a uniform model's virtual policy that there are no rules for with layer groups
UNSUPPORTED = {
    "rules=paper": "the paper has no windows, and its thread would keep what lies behind one",
    "admission=vattention": "its scheduler counts page-groups of one size",
    "sharing=copy": "a fork maps what it shares",
    "prefix_index=hash": "windows have unmapped what a hit would need",
}


class LayeredVirtual(LayeredRanges):
    """`page_size`, `layout`, `deferred` and `background` are the knobs of `allocators.virtual`.

    `window_page_size` is the page size of layer groups of which a sequence holds a bounded part
    (window, chunk, state, encoder); None: `page_size` is theirs too.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        page_size: str = "2MiB",
        window_page_size: str | None = None,
        layout: str = "per_layer",
        deferred: bool = True,
        background: bool = True,
    ) -> None:
        super().__init__(geometry, page_size, window_page_size, layout)
        self.deferred, self.background = deferred, background

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        rules: str = "vattention",
        admission: str = "needed",
        sharing: str = "alias",
        deferred: bool = True,
        background: bool = True,
        eager: bool | None = None,
        reclaim_free: float | None = None,
        prefix_index: str = "none",
        **knobs: Any,
    ) -> LayeredVirtual:
        """Return the policy; raises `Unsupported` for rules that layer groups do not have."""
        cls.require_layer_groups(geometry)
        check_knobs(rules, admission, sharing, deferred, background, eager, reclaim_free)
        one_of("prefix_index", prefix_index, INDEXES)
        asked = {"rules": rules, "admission": admission, "sharing": sharing}
        asked["prefix_index"] = prefix_index
        for name, reason in UNSUPPORTED.items():
            knob, _, value = name.partition("=")
            if asked[knob] == value:
                raise Unsupported(f"{name} is not for models with layer groups: {reason}")
        return cls(geometry, deferred=deferred, background=background, **knobs)

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        sequences, private = len(rows), demand.private_tokens
        whole = self._asked(prompt, demand, sequences)
        taken = self._taken(prompt.tokens, private, sequences)
        never = next((pages for pages in (whole, taken) if not self._fits_empty(pages)), None)
        if never is not None:
            raise NeverFits(self._never(never))
        # What these rows have mapped is theirs to use, or it makes room: it is excess so far.
        weights = self.driver.weights
        if not (self._fits_now(weights @ whole) and self._fits_now(weights @ taken)):
            return None
        self._coming = self._needs() + weights @ taken
        first = rows[:1]
        steps = [self._open(first)]
        self.length[first], self.active[first] = prompt.tokens, True
        self._compute(first, 0)
        self._need(first)
        steps.append(self._spare(first, 0 * self.high[:, first]))
        if sequences > 1:
            steps.append(self._continue(int(rows[0]), rows[1:], prompt.tokens))
        if private:
            steps.append(self._diverge(rows, private))
        self.computes[rows] = True
        self._coming[:] = 0
        return join(steps)

    def _open(self, rows: IntArray) -> Grant:
        """Unmap what idle ranges have that a sequence cannot begin with."""
        starts = self.tables.gone[:, rows] == 0
        keep = np.where(starts, self.tables.count[:, rows], 0)
        steps = [self._cut(int(row), keep[:, i]) for i, row in enumerate(rows)]
        self.tables.gone[:, rows] *= starts
        self.tables.count[:, rows] *= starts
        return join(steps)

    def _diverge(self, rows: IntArray, n: int) -> Grant:
        """Give each sequence of a new group `n` slots of its own behind the prompt.

        `rows[0]` keeps the partly filled page-groups, from which the others copy.
        """
        lengths, was = self.length[rows], self.high[:, rows]
        self.length[rows] = lengths + n
        self._need(rows)
        spared = self._spare(rows, was)
        copied = self._copy_on_write(np.roll(rows, -1), np.roll(lengths, -1))
        return join([spared, copied, *self._settle(rows)])

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        more = self._more(rows, n)
        if not self._serves_promises(rows, n, more):
            return None
        before, was = self.length[rows], self.high[:, rows]
        shared = self.tables.is_shared
        self._coming = self._needs() + more
        steps = [self._forget_shared(rows)] if shared else []
        self.length[rows] = before + n
        self._compute(rows, before)
        self._need(rows)
        steps.append(self._spare(rows, was))
        if shared:  # what is behind by now makes room for the copies
            steps.append(self._copy_on_write(rows, before))
        self._coming = 0 * more
        return join(steps)

    def leading(self, rows: IntArray) -> int | None:
        return None  # what is behind one row makes room for all

    def headroom(self, rows: IntArray) -> int:
        most = self.geometry.max_len - int(self.length[rows].max())
        return bisect_headroom(lambda n: self._serves_promises(rows, n, self._more(rows, n)), most)

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        # A page-group that falls behind may let in somebody who waits.
        low = self.low[self.tables.shapes.dropping[:, None], rows]
        return self.lone_steps(
            rows, min(at_most, self.tables.shapes.until_behind(self.length[rows], low))
        )

    def lone_steps(self, rows: IntArray, at_most: int) -> int:
        tables, lengths = self.tables, self.length[rows]
        if tables.is_shared or (self.high > tables.count).any() or self._work_is_left():
            return 0
        growing = np.zeros(len(self.active), dtype=bool)
        growing[rows] = True
        look, shapes = self._look_ahead(), tables.shapes
        live = self.active & (tables.count < shapes.width[:, None]) & shapes.grows
        spare = tables.count * shapes.page_tokens - self.length - look
        if look and (spare[live & ~growing] < 0).any():
            return 0
        room = int(spare[live & growing].min(initial=self.geometry.max_len))
        if not self.deferred or (self.background and not look):
            # What falls behind is given back, or is room to map ahead.
            low = self.low[shapes.dropping[:, None], rows]
            room = min(room, shapes.until_behind(lengths, low))
        return max(0, min(at_most, room))

    def take_steps(self, rows: IntArray, n: int) -> Grant | None:
        self.computes[rows], self.first_new[rows] = True, self.length[rows] + n - 1
        return self.grow(rows, n)

    def _look_ahead(self) -> int:
        """Return how many tokens ahead the thread would map now."""
        if not self.background:
            return 0
        if any(self.driver.chunks.fits(*pages) for pages in self._smallest):
            return LOOK_AHEAD_TOKENS
        return int(any(map(self._fits_now, self._smallest)))

    def _work_is_left(self) -> bool:
        """Say whether the thread, or the step where there is none, gives excess back."""
        return not self.deferred and bool(self._excess().any())

    def truncate(self, row: int, n: int) -> Grant:
        tables, rows = self.tables, np.array([row])
        length = self.length[row] - n
        if n and tables.shapes.rewritten.any():
            raise Unsupported("a state is overwritten by each token and cannot be rolled back")
        query = np.minimum(self.first_new[rows], length)
        low, high = self._interval(query, np.array([length]))
        if (low[:, 0] < tables.gone[:, row]).any():
            raise Unsupported("what lies behind a window was unmapped, and is needed again")
        self.length[row], self.first_new[row] = length, query[0]
        self._need(rows)
        # Exclusive page-groups stay mapped for the tokens to come; shared ones cannot be written.
        keep = [self._exclusive(index, row, int(start)) for index, start in enumerate(high[:, 0])]
        return self._cut(row, np.array(keep))

    # -- a step ------------------------------------------------------------------------------
    def begin_step(self) -> StepGrants:
        super().begin_step()
        rows = np.arange(len(self.active))
        before = self._settle(rows)
        beside: list[Grant] = []
        if self.background:
            beside = self._work()
        elif not self.deferred:
            before += self._all_excess()
        if not before and not beside:
            return NO_STEP_GRANTS
        return StepGrants(join(before), join(beside))

    def _short(self, rows: IntArray, tokens: int) -> IntArray:
        """Return the page-groups that live ranges lack to grow by so many tokens."""
        shapes = self.tables.shapes
        columns = np.minimum(shapes.columns(self.length[rows] + tokens), shapes.width[:, None])
        return np.maximum(columns - self.tables.count[:, rows], 0)

    def _work(self) -> list[Grant]:
        """Do what the thread does: map for the next token, then for those behind it.

        The next token's page-groups may cost others their excess; if they cannot be had nothing
        is mapped.  Further ones are mapped until two were asked for (`MOST_AHEAD`).
        """
        rows = np.flatnonzero(self.active)
        lack = self._short(rows, 1)
        due = lack.sum(axis=1)
        steps = []
        if due.any():
            steps.append(self._reclaim(due, None))
            if not self.driver.fits(due):
                return steps
            steps.append(self._mapped(self.tables.extend(rows, lack)))
        asked = int(lack.sum())
        if asked < MOST_AHEAD:
            near = self._short(rows, LOOK_AHEAD_TOKENS).any(axis=0)
            steps += self._ahead(rows[near], asked) if near.any() else []
        if not due.any() and not self.deferred:
            steps.append(self._give_back_one())
        return [grant for grant in steps if not grant.is_empty]

    def _ahead(self, rows: IntArray, asked: int) -> list[Grant]:
        steps = []
        for tokens in range(2, LOOK_AHEAD_TOKENS + 1):
            lack = self._short(rows, tokens)
            for at in np.flatnonzero(lack.any(axis=0)).tolist():
                wanted = lack[:, at : at + 1]
                if self.driver.fits(wanted[:, 0]):
                    steps.append(self._mapped(self.tables.extend(rows[at : at + 1], wanted)))
                asked += int(wanted.sum())
                if asked >= MOST_AHEAD:
                    return steps
        return steps

    # -- giving back -------------------------------------------------------------------------
    def _give_back_one(self) -> Grant:
        """Unmap one page-group: of what lies behind a window, else of the last idle range.

        The idle range that a caller is to let next, the first, keeps what it has.
        """
        behind, rest = self._excess()
        one = np.zeros(len(behind), dtype=np.int64)
        if behind.any():
            row = int(np.flatnonzero(behind.any(axis=0))[-1])
            one[np.flatnonzero(behind[:, row])[0]] = 1
            return self._drop_behind(row, one)
        idle = np.flatnonzero(~self.active & rest.any(axis=0))
        idle = idle[idle != np.argmin(self.active)]
        if not len(idle):
            return EMPTY_GRANT
        row = int(idle[-1])
        one[np.flatnonzero(rest[:, row])[-1]] = 1
        return self._cut(row, self.tables.count[:, row] - one)

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        """End sequences; their ranges keep what they alone have mapped."""
        steps = []
        for row in rows.tolist():
            start = [self._exclusive(i, row, 0) for i in range(len(self.tables.shapes))]
            steps.append(self._cut(row, np.array(start)))
        self.length[rows] = self.first_new[rows] = 0
        self.active[rows] = self.computes[rows] = False
        self.low[:, rows] = self.high[:, rows] = 0
        return join(steps)

    # -- views -------------------------------------------------------------------------------
    def layer_layout(self, rows: IntArray, layer_group: int) -> Strided:
        """Return where ranges begin: row r's at r times the slots of the longest range."""
        shape = self.tables.shapes.tables[layer_group]
        step = int(self.tables.shapes.width[layer_group]) * shape.page_tokens
        slots = self.geometry.layer_groups[layer_group].slots(self.length[rows])
        return Strided(rows * step, slots)

    def layer_pages(self, layer_group: int) -> tuple[int, int]:
        shapes = self.tables.shapes
        return shapes.tables[layer_group].page_tokens, int(shapes.width[layer_group])

    def slot_places(self, layer_group: int, slots: IntArray) -> IntArray:
        return self.slot_pieces(layer_group, slots)[:, 0]

    def slot_pieces(self, layer_group: int, slots: IntArray) -> IntArray:
        t = self.tables.shapes.tables[layer_group].page_tokens
        pages = self.driver.pieces(layer_group, slots // t)
        kind = self.geometry.layer_groups[layer_group]
        piece = kind.slot_bytes // pages.shape[1]
        return pages + (slots % t * piece)[:, None]

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        return account(self, rows, finals, steps)

    def driver_calls(self, page_groups: IntArray) -> dict[int, int]:
        driver, ranks = self.driver, self.geometry.ranks
        of = page_groups[:, 3] if len(page_groups) else page_groups[:, 0]
        groups = np.bincount(of, minlength=len(driver.of_group))
        sizes = (driver.chunk_bytes // ranks, driver.unit_bytes // ranks)
        large, small = (driver.weights @ groups).tolist()
        return {sizes[0]: large, sizes[1]: small} if driver.two_sizes else {sizes[0]: large}

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free, cached = self.driver.chunks.units_free, self.cached_pages
        return self.driver.total * self.driver.chunks.parts - free - cached, cached, free

    def check(self) -> None:
        tables = self.tables
        tables.check()
        live = np.flatnonzero(self.active)
        low, high = self._interval(self.first_new[live], self.length[live])
        assert (self.low[:, live] == low).all(), "a range is not told what its sequence reads"
        assert (self.high[:, live] == high).all(), "a range is not as long as its sequence"
        assert not self.low[:, ~self.active].any()
        assert not self.high[:, ~self.active].any(), "an idle range needs something"
        assert (tables.gone[:, live] <= low).all(), "what is still read is not mapped"
        assert (low <= tables.count[:, live]).all(), "a range has a hole"
        assert self.available >= 0, "more is promised than there is"
        assert not self._coming.any(), "a call that is over has promises"
        for index, table in enumerate(tables.table):
            column = np.arange(table.shape[1])
            first, stop = self.low[index][:, None], self.high[index][:, None]
            excess = (table >= 0) & ((column < first) | (column >= stop))
            assert (tables.ref[table[excess]] == 1).all(), "excess is shared"
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
