"""Contiguous reservation: one physical extent a sequence.

The baselines of the PagedAttention paper (arXiv 2309.06180, section 6.1): Orca reserves an extent
at admission for the longest possible sequence (`max`), for the output rounded up to a power of two
(`pow2`) or for the true length (`oracle`), placed by a buddy allocator.  `grow` is the dynamic
cache of common decoding libraries: it doubles the extent and copies when it is full.  Nothing is
shared: a fork copies, and a beam step copies every row that changes its parent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    Allocator,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    Strided,
    Unsupported,
    Usage,
    one_of,
)
from allocators.host import HostExtents
from allocators.placement import PLACEMENTS, Extent
from allocators.rules import contiguous as rules
from allocators.rules.extents import extent_size, next_power_of_two

#: in the order of their numbers in `allocators.rules.contiguous`
RESERVATIONS = ("max", "pow2", "oracle", "grow")


class Contiguous(Allocator):
    """`reservation` says how long an extent is, `placement` where it goes."""

    @classmethod
    def of(cls, geometry: Geometry, *, ring: bool = True, **knobs: Any) -> Allocator:
        """Return the policy; `ring` is for models with layer groups, where a window may be one."""
        if not isinstance(ring, bool):
            raise ValueError(f"ring must be true or false, got {ring!r}")
        if not geometry.layer_groups:
            return cls(geometry, **knobs)
        if cls is not Contiguous:
            return super().of(geometry)  # a derived policy's rules are those of a uniform model
        from allocators.layered.contiguous import LayeredContiguous  # it derives from this class

        return LayeredContiguous(geometry, ring=ring, **knobs)

    def __init__(
        self,
        geometry: Geometry,
        *,
        reservation: str = "max",
        placement: str = "buddy",
        prefix_index: str = "none",
    ) -> None:
        one_of("reservation", reservation, RESERVATIONS)
        one_of("placement", placement, PLACEMENTS)
        if prefix_index != "none":
            raise Unsupported(
                f"prefix_index={prefix_index}: contiguous sequences cannot share a prefix, as each "
                "has an extent of its own; use allocator=paged or virtual"
            )
        super().__init__(geometry)
        self.reservation = reservation
        self._kind = RESERVATIONS.index(reservation)
        self.placement = PLACEMENTS[placement](self._pool_units())
        self.host = HostExtents(geometry.host_tokens)
        self.start: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)
        self.size: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)

    def reserved_slots(self, prompt_tokens: int, demand: Demand) -> int:
        """Return how many slots a sequence reserves that starts with `prompt_tokens`."""
        return rules.reserved_slots(
            self._kind,
            prompt_tokens + demand.private_tokens,
            demand.prompt_tokens,
            demand.output_tokens,
            self.geometry.max_len,
        )

    # What the pool places are units; here each is a slot.
    def _pool_units(self) -> int:
        return self.geometry.capacity_tokens

    def _units(self, slots: int) -> int:
        """Return the units of a reservation of so many slots."""
        return slots

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        whole = max(prompt.tokens, prompt.whole_tokens)
        to_come = max(0, demand.sequences - len(rows))
        if not self._place(rows, self.reserved_slots(whole, demand), to_come):
            return None
        length = prompt.tokens + demand.private_tokens
        for row in rows.tolist():
            self.length[row], self.active[row] = length, True
        if len(rows) == 1:
            return EMPTY_GRANT
        return self._copies(np.repeat(rows[:1], len(rows) - 1), rows[1:], prompt.tokens)

    def _place(self, rows: IntArray, slots: int, to_come: int = 0) -> bool:
        """Give each an extent, if there is room for theirs and for `to_come` more like them."""
        most, wanted = self.placement.most(self._units(slots)), len(rows) + to_come
        if wanted > most:
            raise NeverFits(
                f"{wanted} extents of {slots} slots are needed, the pool of "
                f"{self.geometry.capacity_tokens} can never give more than {most}"
            )
        taken = self._take([slots] * wanted)
        if taken is None:
            return False
        for extent in reversed(taken[len(rows) :]):
            self.placement.give(extent)
        for row, extent in zip(rows.tolist(), taken[: len(rows)], strict=True):
            self._hold(row, extent, slots)
        return True

    def _take(self, sizes: list[int]) -> list[Extent] | None:
        taken: list[Extent] = []
        for slots in sizes:
            extent = self.placement.take(self._units(slots))
            if extent is None:
                for other in reversed(taken):
                    self.placement.give(other)
                return None
            taken.append(extent)
        return taken

    def _hold(self, row: int, extent: Extent, slots: int) -> None:
        self.start[row], self.size[row] = extent.start, slots

    def _extent(self, row: int) -> Extent:
        size = extent_size(self.placement.holes, self._units(int(self.size[row])))
        return Extent(int(self.start[row]), size)

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        after = self.length[rows] + n
        full = after > self.size[rows]
        if not full.any():
            self.length[rows] = after
            return EMPTY_GRANT
        if self.reservation != "grow":
            return None
        movers = rows[full]
        sizes = self._doubled(movers, n)
        taken = self._take(sizes)
        if taken is None:
            return None
        grant = self._moved(movers, taken, sizes)
        self.length[rows] = after
        return grant

    def _moved(self, rows: IntArray, extents: list[Extent], sizes: list[int]) -> Grant:
        """Let these sequences move to other extents, of so many slots."""
        starts = [extent.start for extent in extents]
        copies = np.column_stack([self.start[rows], starts, self.length[rows]])
        for row, extent, slots in zip(rows.tolist(), extents, sizes, strict=True):
            self.placement.give(self._extent(row))
            self._hold(row, extent, slots)
        return Grant(copies=copies)

    def _doubled(self, rows: IntArray, n: int) -> list[int]:
        """Return the sizes, doubled as often as needed, that hold `n` more slots."""
        most, after = self.geometry.max_len, (self.length[rows] + n).tolist()
        pairs = zip(self.size[rows].tolist(), after, strict=True)
        return [rules.doubled(size, slots, most) for size, slots in pairs]

    def headroom(self, rows: IntArray) -> int:
        lengths, sizes = self.length[rows], self.size[rows]
        most = self._most_growth(rows)
        room = int((sizes - lengths).min())
        if self.reservation != "grow" or room >= most:
            return min(room, most)
        # Between two doublings of any row every n needs the same extents: try those steps only.
        steps = {most, room}
        for size, length in zip(sizes.tolist(), lengths.tolist(), strict=True):
            while size - length < most:
                steps.add(size - length)
                size *= 2
        for n in sorted(steps, reverse=True):
            full = rows[lengths + n > sizes]
            taken = self._take(self._doubled(full, n))
            if taken is not None:
                for extent in reversed(taken):
                    self.placement.give(extent)
                return n
        return 0

    def _most_growth(self, rows: IntArray) -> int:
        """Return by how many slots these rows could grow in memory without end."""
        return self.geometry.max_len - int(self.length[rows].max())

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        return max(0, min(at_most, int((self.size[rows] - self.length[rows]).min())))

    def truncate(self, row: int, n: int) -> Grant:
        self.length[row] -= n
        return EMPTY_GRANT

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        length = int(self.length[parent])
        if not self._place(children, self.reserved_slots(length, demand)):
            return None
        self.length[children] = length
        self.active[children] = True
        return self._copies(np.full(len(children), parent), children, length)

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        moved = rows != parents
        return self._copies(parents[moved], rows[moved], self.length[rows[moved]])

    def _copies(self, sources: IntArray, targets: IntArray, slots: IntArray | int) -> Grant:
        if not len(targets):
            return EMPTY_GRANT
        many = np.broadcast_to(slots, targets.shape)
        return Grant(copies=np.column_stack([self.start[sources], self.start[targets], many]))

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        for row in rows.tolist():
            self.placement.give(self._extent(row))
            self.length[row] = self.size[row] = self.start[row] = 0
            self.active[row] = False
        return EMPTY_GRANT

    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        swaps = self.host.save(ticket, self.start[rows], self.length[rows], self.size[rows])
        if swaps is None:
            return None
        self.release(rows)
        return Grant(swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        # One that was preempted because it was full comes back to where it can go on.
        sizes = self.host.sizes_of(
            ticket, lambda n: min(next_power_of_two(n), self.geometry.max_len)
        )
        taken = self._take(sizes)
        if taken is None:
            return None
        for row, extent, slots in zip(rows.tolist(), taken, sizes, strict=True):
            self._hold(row, extent, slots)
        self.length[rows], swaps = self.host.restore(ticket, self.start[rows])
        self.active[rows] = True
        return Grant(swaps_in=swaps)

    # -- views -------------------------------------------------------------------------------
    def layout(self, rows: IntArray) -> Strided:
        return Strided(self.start[rows], self.length[rows])

    def addresses(self, row: int) -> IntArray:
        return self.start[row] + np.arange(self.length[row])

    def extents(self, row: int) -> IntArray:
        return np.array([[self.start[row], self.size[row]]])

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        past = self.length[rows] - np.arange(steps - 1, -1, -1)[:, None]
        later = rules.unwritten(self.size[rows], past, finals).sum(axis=1)
        flat = np.zeros(steps, dtype=np.int64)
        asked, free = flat + self.size.sum(), flat + self.placement.free
        held, capacity = flat + np.count_nonzero(self.active), self.geometry.capacity_tokens
        per_token = self.geometry.bytes_per_token
        account = rules.account(past.sum(axis=1), later, asked, free, held, capacity, per_token)
        return Usage(*account._replace(cached=flat))

    def arrays(self) -> rules.ContiguousArrays | None:
        if type(self) is not Contiguous:
            return None
        # A move takes new extents before it gives the old ones back.
        self.placement.reserve(2 * self.geometry.max_seqs + 2)
        return rules.ContiguousArrays(
            self.placement.holes,
            self.length,
            self.active,
            self.start,
            self.size,
            self._kind,
            self.geometry.max_len,
            self.geometry.bytes_per_token,
        )

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        held = sum(self._extent(row).size for row in np.flatnonzero(self.active).tolist())
        return held, 0, self.placement.free

    def check(self) -> None:
        self.host.check()
        active, _, free = self.balance()
        assert active + free == self._pool_units(), "units of the pool are lost or counted twice"
        live = np.flatnonzero(self.active).tolist()
        assert not self.size[~self.active].any(), "an ended sequence has an extent"
        end = 0
        for start, size in sorted(self._extent(row) for row in live):
            assert start >= end, "two extents overlap"
            end = start + size
        assert end <= self._pool_units(), "an extent leaves the pool"
        assert (self.length[live] <= self.size[live]).all(), "longer than its extent"
