"""Contiguous reservation with layer groups: one extent a sequence, in it a part a layer group.

    extent:  [ full: r slots | sliding: a ring of R slots | state: 1 | cross: encoder tokens ]

`r` is what the reservation asks for, as in a uniform model.  A window's ring holds what the first
query of a step reads, window - 1 slots, and all that the step writes before it is read: with a ring
of exactly the window a chunk of a prompt would overwrite what its own first tokens still attend to.
So R = window - 1 + the tokens of the largest step, and never more than `r` (more for a longer
prompt that is admitted in one go); where nobody has said how many tokens a step computes there is
no ring.  Position p lies in slot p % R of its part.  With
`ring=false` windows reserve `r` as other layers do.

The pool is placed in units of the greatest common divisor of all slots' bytes, so that every part
is a whole number of units and a model with one full layer group is placed as a uniform one.
"""

from __future__ import annotations

import math

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    NO_COPIES,
    Demand,
    Geometry,
    Grant,
    IntArray,
    Prompt,
    Strided,
    Unsupported,
    Usage,
)
from allocators.contiguous import Contiguous
from allocators.host import HostExtents
from allocators.layered.base import LayeredAllocator
from allocators.layers import WINDOW_KINDS, LayerGroup
from allocators.placement import Extent
from allocators.rules.contiguous import EXTENT_ENTRY_BYTES, unwritten
from allocators.rules.extents import extent_size, next_power_of_two


class LayeredContiguous(LayeredAllocator, Contiguous):
    """The knobs are those of `Contiguous`, and `ring`.

    A slot's number is `stride` times the unit at which its part of an extent begins, and its place
    in that part: so a part's slots follow each other, and a number says which bytes it is.
    `parts` [layer groups, rows] are the units at which the parts begin, `rings` how many slots they
    have, `oldest` the first position that each still holds, and `begun` the first that it ever did.
    """

    def __init__(self, geometry: Geometry, *, ring: bool = True, **knobs: str) -> None:
        kinds = geometry.layer_groups
        self.unit_bytes = math.gcd(*(kind.slot_bytes for kind in kinds))
        self.stride = max(geometry.max_len, *(kind.encoder_tokens for kind in kinds))
        super().__init__(geometry, **knobs)
        if geometry.capacity_bytes < self.unit_bytes:
            raise ValueError(f"geometry needs a pool of at least one slot, got {geometry}")
        self._slot_units = np.array([kind.slot_bytes for kind in kinds]) // self.unit_bytes
        self._most_slots = np.array([self._most_of(kind, ring) for kind in kinds])
        #: of those that may be rings: their numbers, and how many slots they have at most
        self._windows = {
            i: int(most)
            for i, most in enumerate(self._most_slots)
            if kinds[i].kind in WINDOW_KINDS and most < geometry.max_len
        }
        shape = (len(kinds), geometry.max_seqs)
        self.parts, self.rings, self.oldest, self.begun = (
            np.zeros(shape, dtype=np.int64) for _ in range(4)
        )
        self._grows = np.array([kind.grows for kind in kinds])
        self._beyond_step = 0  # by how many tokens what is admitted now is longer than a step
        host_bytes = geometry.host_tokens * geometry.bytes_per_token
        self.host = HostExtents(host_bytes // self.unit_bytes)
        self._tickets: dict[int, tuple[IntArray, IntArray]] = {}  # lengths and reserved slots

    def _most_of(self, kind: LayerGroup, ring: bool) -> int:
        """Return the slots of a layer group that no sequence has more of."""
        geometry = self.geometry
        if not kind.grows:
            return kind.encoder_tokens or 1
        if kind.kind in WINDOW_KINDS and ring and geometry.step_tokens:
            return min(geometry.max_len, kind.window - 1 + geometry.step_tokens)
        return geometry.max_len

    def _pool_units(self) -> int:
        return self.geometry.capacity_bytes // self.unit_bytes

    def _slots(self, slots: int) -> IntArray:
        """Return the slots of each part of a reservation of so many slots, [layer groups]."""
        most = self._most_slots.copy()
        most[list(self._windows)] += self._beyond_step
        return np.where(self._grows, np.minimum(slots, most), most)

    def _units(self, slots: int) -> int:
        return int(self._slots(slots) @ self._slot_units)

    def _extent(self, row: int) -> Extent:
        units = int(self.rings[:, row] @ self._slot_units)
        return Extent(int(self.start[row]), extent_size(self.placement.holes, units))

    # -- admission ---------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        length = prompt.tokens + demand.private_tokens
        # A prompt that is computed in one go, however long: its ring holds that step as well.
        self._beyond_step = max(0, length - self.geometry.step_tokens)
        try:
            grant = super().admit(rows, prompt, demand)
        finally:
            self._beyond_step = 0
        if grant is not None:
            self.first_new[rows[:1]], self.computes[rows] = 0, True
            self._age(rows)
        return grant

    def _hold(self, row: int, extent: Extent, slots: int) -> None:
        super()._hold(row, extent, slots)
        self.rings[:, row] = self._slots(slots)
        units = self.rings[:, row] * self._slot_units
        self.parts[:, row] = extent.start + np.cumsum(units) - units

    def _age(self, rows: IntArray) -> None:
        """Note what has been overwritten of rows that are longer now."""
        for i in self._windows:
            gone = self.length[rows] - self.rings[i, rows]
            self.oldest[i, rows] = np.maximum(self.oldest[i, rows], gone)

    # -- growth ------------------------------------------------------------------------------
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        before = self.length[rows]
        if n > self._ring_room(rows):
            return None
        grant = super().grow(rows, n)
        if grant is not None:
            self._compute(rows, before)
            self._age(rows)
        return grant

    def _ring_room(self, rows: IntArray) -> int:
        """Return by how many slots these rows may grow before a ring loses what is still read."""
        room, lengths = self.geometry.max_len, self.length[rows]
        for i, most in self._windows.items():
            first = self.geometry.layer_groups[i].first_read(self._next_query(rows))
            room = min(room, int((most + first - lengths).min()))
        return max(room, 0)

    def _most_growth(self, rows: IntArray) -> int:
        return min(super()._most_growth(rows), self._ring_room(rows))

    def _moved(self, rows: IntArray, extents: list[Extent], sizes: list[int]) -> Grant:
        parts, rings, first = self.parts[:, rows], self.rings[:, rows], self._next_query(rows)
        super()._moved(rows, extents, sizes)
        copies = []
        for i, (kind, ends) in enumerate(self._ends(self.length[rows])):
            read = kind.first_read(first)
            at, start, count = _stretches(read, ends, rings[i], self.rings[i, rows])
            source = self._slot(parts[i, at], start % rings[i, at])
            copies.append((source, self._slots_of(i, rows[at], start), count))
            self.oldest[i, rows] = self.begun[i, rows] = read
        return _granted(copies)

    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        return max(0, min(super().quiet_steps(rows, at_most), self._ring_room(rows)))

    def truncate(self, row: int, n: int) -> Grant:
        left = self.length[row : row + 1] - n
        query = np.minimum(left, self._next_query(np.array([row])))
        for i, kind in enumerate(self.geometry.layer_groups):
            if kind.kind == "state" and n:
                raise Unsupported("a state is overwritten by each token and cannot be rolled back")
            if int(kind.first_read(query)[0]) < self.oldest[i, row]:
                raise Unsupported(
                    f"the ring of a window of {kind.window} has lost what {int(left[0])} tokens "
                    "read: only the tokens of the last step can be rolled back"
                )
        super().truncate(row, n)
        self.first_new[row] = min(self.first_new[row], self.length[row])
        return EMPTY_GRANT

    # -- sharing -----------------------------------------------------------------------------
    def _copies(self, sources: IntArray, targets: IntArray, slots: IntArray | int) -> Grant:
        if not len(targets):
            return EMPTY_GRANT
        lengths = np.broadcast_to(slots, targets.shape)
        copies = []
        for i, (kind, ends) in enumerate(self._ends(lengths)):
            first = kind.first_read(lengths)
            both = self.rings[i, sources], self.rings[i, targets]
            at, start, count = _stretches(first, ends, *both)
            source = self._slots_of(i, sources[at], start)
            copies.append((source, self._slots_of(i, targets[at], start), count))
            self.oldest[i, targets] = self.begun[i, targets] = first
        self.first_new[targets] = lengths
        return _granted(copies)

    def _ends(self, lengths: IntArray) -> list[tuple[LayerGroup, IntArray]]:
        """Return each layer group, and the slots it has of sequences of these lengths."""
        return [(kind, kind.slots(lengths)) for kind in self.geometry.layer_groups]

    def _slot(self, part: IntArray, at: IntArray) -> IntArray:
        return part * self.stride + at

    def _slots_of(self, layer_group: int, rows: IntArray, positions: IntArray) -> IntArray:
        """Return where the rows have these positions, one each."""
        ring = np.maximum(self.rings[layer_group, rows], 1)
        return self._slot(self.parts[layer_group, rows], positions % ring)

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        super().release(rows)
        for state in (self.parts, self.rings, self.oldest, self.begun):
            state[:, rows] = 0
        self.first_new[rows], self.computes[rows] = 0, False
        return EMPTY_GRANT

    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        lengths, sizes = self.length[rows], self.size[rows]
        saved = self.host.save(ticket, self.start[rows], self._live_units(lengths), sizes)
        if saved is None:
            return None
        self._tickets[ticket] = lengths, sizes
        swaps = self._swaps(rows, lengths, saved[:, 1])
        self.release(rows)
        return Grant(swaps_out=swaps)

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        lengths, sizes = self._tickets[ticket]
        # One that was preempted because it was full comes back to where it can go on.
        reserved = [
            size if n < size else min(next_power_of_two(n + 1), self.geometry.max_len)
            for n, size in zip(lengths.tolist(), sizes.tolist(), strict=True)
        ]
        taken = self._take(reserved)
        if taken is None:
            return None
        for row, extent, slots in zip(rows.tolist(), taken, reserved, strict=True):
            self._hold(row, extent, slots)
        del self._tickets[ticket]
        _, saved = self.host.restore(ticket, self.start[rows])
        self.length[rows] = self.first_new[rows] = lengths
        self.active[rows] = True
        for i, kind in enumerate(self.geometry.layer_groups):
            self.oldest[i, rows] = self.begun[i, rows] = kind.first_read(lengths)
        return Grant(swaps_in=self._swaps(rows, lengths, saved[:, 1]))

    def _live_units(self, lengths: IntArray) -> IntArray:
        """Return the units of what sequences of these lengths go on from."""
        live = [ends - kind.first_read(lengths) for kind, ends in self._ends(lengths)]
        return self._slot_units @ np.array(live)

    def _swaps(self, rows: IntArray, lengths: IntArray, host: IntArray) -> IntArray:
        """Return the swaps between rows and host extents, in which what is live lies packed."""
        swaps, begins = [], host
        for i, (kind, ends) in enumerate(self._ends(lengths)):
            first = kind.first_read(lengths)
            at, start, count = _stretches(first, ends, self.rings[i, rows])
            saved = self._slot(begins[at], start - first[at])
            swaps.append((self._slots_of(i, rows[at], start), saved, count))
            begins = begins + (ends - first) * self._slot_units[i]
        return _table(swaps)

    # -- views -------------------------------------------------------------------------------
    def layer_layout(self, rows: IntArray, layer_group: int) -> Strided:
        kind = self.geometry.layer_groups[layer_group]
        base = self._slot(self.parts[layer_group, rows], np.zeros_like(rows))
        return Strided(base, kind.slots(self.length[rows]), self.rings[layer_group, rows])

    def layer_slots(self, row: int, layer_group: int) -> IntArray:
        kind = self.geometry.layer_groups[layer_group]
        position = np.arange(int(kind.slots(self.length[row : row + 1])[0]))
        slots = self._slots_of(layer_group, np.full_like(position, row), position)
        return np.where(position >= self.oldest[layer_group, row], slots, -1)

    def slot_places(self, layer_group: int, slots: IntArray) -> IntArray:
        part, at = np.divmod(slots, self.stride)
        slot_bytes = self.geometry.layer_groups[layer_group].slot_bytes
        return part * self.unit_bytes + at * slot_bytes

    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        past = self.length[rows] - np.arange(steps - 1, -1, -1)[:, None]
        query = self.first_new[rows][None, :] if steps == 1 else past - 1
        to_come = unwritten(self.size[rows], past, finals)
        live, later, dead = (np.zeros(steps, dtype=np.int64) for _ in range(3))
        for i, kind in enumerate(self.geometry.layer_groups):
            slots = self.rings[i, rows]
            if not kind.grows:
                live += np.broadcast_to(slots, past.shape).sum(axis=1) * kind.slot_bytes
                continue
            read = past - kind.first_read(query)
            holds = np.minimum(past - self.begun[i, rows], slots)
            # A ring's dead slots are written again, as far as the sequence will get; the blank
            # ones come first.
            again = np.minimum(to_come, slots - read)
            over = holds - read - np.maximum(again - (slots - holds), 0)
            live += read.sum(axis=1) * kind.slot_bytes
            later += again.sum(axis=1) * kind.slot_bytes
            dead += over.sum(axis=1) * kind.slot_bytes
        held = self._pool_units() - self.placement.free
        asked = int((self._slot_units[:, None] * self.rings).sum())
        extents = np.full(steps, np.count_nonzero(self.active))
        free_bytes = self.geometry.capacity_bytes - held * self.unit_bytes
        return Usage(
            token=live,
            reserved=later,
            internal=asked * self.unit_bytes - live - later - dead,
            round_up=np.full(steps, (held - asked) * self.unit_bytes),
            cached=np.zeros_like(live),
            free=np.full(steps, free_bytes),
            pages=extents,
            logical_pages=extents,
            metadata_bytes=extents * len(self.geometry.layer_groups) * EXTENT_ENTRY_BYTES,
            expired=dead,
        )

    # -- checks ------------------------------------------------------------------------------
    def check(self) -> None:
        super().check()
        live = np.flatnonzero(self.active)
        for row in live.tolist():
            least = self._slots(int(self.size[row]))
            assert (self.rings[:, row] >= least).all(), "a part of an extent is too short"
        for i, (kind, ends) in enumerate(self._ends(self.length[live])):
            read = kind.first_read(np.minimum(self.first_new[live], self.length[live]))
            assert (read >= self.oldest[i, live]).all(), "what is still read has been overwritten"
            assert (ends - self.oldest[i, live] <= self.rings[i, live]).all(), "a ring is too short"


def _stretches(
    first: IntArray, ends: IntArray, *rings: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the stretches of positions from `first` to `ends` that lie side by side in all rings.

    As (index of the sequence, first position, positions); each ring is gone round once at most.
    """
    turns = [np.maximum((ends - 1) // np.maximum(ring, 1) * ring, first) for ring in rings]
    starts = np.sort([first, *turns], axis=0)
    stops = np.vstack([starts[1:], ends])
    some = (stops - starts).ravel() > 0
    at = np.tile(np.arange(len(ends)), len(starts))
    return at[some], starts.ravel()[some], (stops - starts).ravel()[some]


def _table(moves: list[tuple[IntArray, IntArray, IntArray]]) -> IntArray:
    """Return the moves of each layer group as rows of a grant."""
    tables = [np.column_stack([*of, np.full(len(of[0]), i)]) for i, of in enumerate(moves)]
    return np.concatenate(tables)


def _granted(moves: list[tuple[IntArray, IntArray, IntArray]]) -> Grant:
    copies = _table(moves)
    return Grant(copies=copies if len(copies) else NO_COPIES)
