"""A model of memory for policies with layer groups: which bytes hold what of which layer group.

It is to `LayeredAllocator` what `SlotMemory` is to the others, and is asked the same.  Each value
that is written marks all bytes of its slot with the value and the layer group, so two layer groups
that use the same bytes, a window given up too early and a hit whose window is gone all show as a
wrong value.  A state holds the value of the last token; an encoder's tokens hold what follows from
the first token of the sequence, which all of its group share.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from allocators.base import Allocator, BlockTable, Grant, IntArray
from allocators.layered.base import LayeredAllocator
from allocators.layers import LayerGroup
from harness.conformance.frames import Frames
from harness.conformance.memory import (
    Place,
    SlotMemory,
    Violation,
    own_tokens,
    require,
    same_length,
    same_place,
)

#: more slots than any layer group has
MANY_SLOTS = 1 << 40


class LayeredMemory(SlotMemory):
    """What each stretch of the pool holds, `unit` bytes long; slots are whole units."""

    def __init__(self, allocator: LayeredAllocator) -> None:
        self.allocator: LayeredAllocator = allocator
        self.geometry = allocator.geometry
        self.layer_groups = self.geometry.layer_groups
        none = np.zeros(0, dtype=np.int64)
        #: in how many pieces a slot of each layer group lies
        self.pieces = [
            allocator.slot_pieces(i, none).shape[1] for i in range(len(self.layer_groups))
        ]
        sizes = (of.slot_bytes // n for of, n in zip(self.layer_groups, self.pieces, strict=True))
        self.unit = math.gcd(*sizes, allocator.page_bytes)
        units = -(-self.geometry.capacity_bytes // self.unit)
        self.units: IntArray = np.full(units, -1, dtype=np.int64)
        self.away: dict[tuple[int, int], int] = {}  # (layer group, host slot): value
        self._begin()
        self.maps_pages = allocator.page_bytes > 0
        self._frames = Frames(allocator) if self.maps_pages else None

    # -- one layer group ---------------------------------------------------------------------
    def _covered(self, layer_group: int, slots: IntArray) -> IntArray:
        """Return the units of each slot, [slots, units of a slot]."""
        # What is wrong is put into words only then: this is asked for each row at each step.
        if (slots < 0).any():
            raise Violation(f"addressing: no slot where one is used: {slots}")
        places = self.allocator.slot_pieces(layer_group, slots)
        wide = self.layer_groups[layer_group].slot_bytes // self.pieces[layer_group] // self.unit
        first, rest = np.divmod(places, self.unit)
        if rest.any():
            raise Violation(f"addressing: slots at bytes {places.tolist()}")
        if len(first) and (first.min() < 0 or first.max() + wide > len(self.units)):
            raise Violation(f"addressing: bytes outside the pool: {places.tolist()}")
        units = first[:, :, None] + np.arange(wide)
        return units.reshape(len(slots), wide * self.pieces[layer_group])

    def _put(self, layer_group: int, slots: IntArray, values: IntArray) -> None:
        if self.maps_pages:
            pages = slots // self.allocator.layer_pages(layer_group)[0]
            self.step_writes.update((layer_group, page) for page in pages.tolist())
        codes = values * len(self.layer_groups) + layer_group
        self.units[self._covered(layer_group, slots)] = codes[:, None]

    def _wrong(self, layer_group: int, slots: IntArray, values: IntArray) -> IntArray:
        """Return the indices of the slots that do not hold these values."""
        codes = values * len(self.layer_groups) + layer_group
        held = self.units[self._covered(layer_group, slots)]
        return np.flatnonzero((held != codes[:, None]).any(axis=1))

    def _get(self, layer_group: int, slots: IntArray) -> IntArray:
        """Return the values of these slots, -1 where there is none of this layer group."""
        held = self.units[self._covered(layer_group, slots)]
        whole = (held == held[:, :1]).all(axis=1)
        value, of = np.divmod(held[:, 0], len(self.layer_groups))
        return np.where(whole & (of == layer_group), value, -1)

    # -- sequences ---------------------------------------------------------------------------
    def write_tokens(self, row: int, first: int, values: IntArray) -> None:
        """Write positions from `first` on; all that they read must be there."""
        end = first + len(values)
        told = int(self.allocator.first_new[row])
        require(told <= first, "protocol", f"first_new is {told}, position {first} is computed")
        for i, of in enumerate(self.layer_groups):
            slots = self.allocator.layer_slots(row, i)
            if of.kind == "cross":
                if not first:
                    self._put(i, slots, _encoded(of, values))
            elif of.kind == "state":
                self._put(i, slots, values[-1:])
            else:
                reads = int(of.first_read(np.array([first]))[0])
                _no_hole(row, i, of, slots, reads, end)
                self._put(i, slots[first:end], values)

    def require_hit(self, row: int, values: IntArray) -> None:
        """Require that what the token behind these reads holds them already."""
        if not len(values):
            return
        for i, of in enumerate(self.layer_groups):
            slots, expected, at = self._read_next(row, i, of, values)
            wrong = at[self._wrong(i, slots, expected)]
            text = (
                f"of {len(values)} cached tokens {_name(i, of)} has not those at {wrong.tolist()}"
            )
            require(not len(wrong), "honest hit", text)

    def read_back(self, tokens: dict[int, IntArray], twin: Allocator) -> list[IntArray]:
        """Require that each row reads back what its next token reads, and all that it holds.

        Returns, for each row, what `held_bytes` takes: its slots as keys, live ones marked.
        """
        assert isinstance(twin, LayeredAllocator)
        found = []
        rows = np.array(list(tokens), dtype=np.int64)
        laid_out = [self._laid_out(i, rows) for i in range(len(self.layer_groups))]
        for n, (row, expected) in enumerate(tokens.items()):
            length, keys = int(self.allocator.length[row]), []
            same_length(row, True, length, expected)
            first = int(self.allocator.first_new[row])
            for i, of in enumerate(self.layer_groups):
                slots = self.allocator.layer_slots(row, i)
                needed, due, at = self._read_next(row, i, of, expected)
                held = np.flatnonzero(slots >= 0)
                if of.grows:  # what is held is all that the next token reads, and more
                    wrong = held[self._wrong(i, slots[held], expected[held])]
                else:
                    wrong = at[self._wrong(i, needed, due)]
                own_tokens(row, wrong, length)
                same = laid_out[i] is None or np.array_equal(laid_out[i][n][at], needed)
                same_place(row, same, np.array_equal(slots, twin.layer_slots(row, i)))
                live = int(of.first_read(np.array([first]))[0])
                keys.append(np.stack([i * MANY_SLOTS + slots[held], held >= live]))
            found.append(np.concatenate(keys, axis=1))
        return found

    def held_bytes(self, found: list[IntArray]) -> tuple[int, int]:
        """Return the bytes that live slots hold, and those that are held and expired."""
        if not found:
            return 0, 0
        keys, live = np.concatenate(found, axis=1)
        token = self._bytes_of(np.unique(keys[live > 0]))
        return token, self._bytes_of(np.unique(keys)) - token

    def _bytes_of(self, keys: IntArray) -> int:
        slot_bytes = np.array([of.slot_bytes for of in self.layer_groups])
        return int(slot_bytes[keys // MANY_SLOTS].sum())

    def _read_next(
        self, row: int, layer_group: int, of: LayerGroup, values: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Return the slots that the token behind `values` reads, what they hold, and where."""
        slots, end = self.allocator.layer_slots(row, layer_group), len(values)
        if of.kind == "cross":
            return slots, _encoded(of, values), np.arange(len(slots))
        if of.kind == "state":
            return slots, values[-1:], np.zeros(1, dtype=np.int64)
        reads = int(of.first_read(np.array([end]))[0])
        _no_hole(row, layer_group, of, slots, reads, end)
        return slots[reads:end], values[reads:], np.arange(reads, end)

    def _laid_out(self, layer_group: int, rows: IntArray) -> list[IntArray] | None:
        """Return the slots that a layout names, of each row, -1 where none; None if it names none.

        A position that a ring has overwritten is named all the same.
        """
        if not self.layer_groups[layer_group].grows:
            return None
        layout = self.allocator.layer_layout(rows, layer_group)
        if isinstance(layout, BlockTable):
            t, tables = layout.page_tokens, layout.table
        elif self.maps_pages:
            t, pages = self.allocator.layer_pages(layer_group)
            ranges = (layout.base // (t * pages)).tolist()
            tables = np.array([
                [self.mapped.get((layer_group, r, c), (0, -1))[1] for c in range(pages)]
                for r in ranges
            ])  # fmt: skip
        else:
            rings = layout.lengths if layout.ring is None else layout.ring
            each = zip(layout.base, layout.lengths, rings, strict=True)
            return [base + np.arange(length) % max(ring, 1) for base, length, ring in each]
        found = []
        for table, length in zip(tables, layout.lengths.tolist(), strict=True):
            p = np.arange(length)
            found.append(np.where(table[p // t] >= 0, table[p // t] * t + p % t, -1))
        return found

    # -- grants ------------------------------------------------------------------------------
    def map(self, grant: Grant) -> None:
        """Execute swaps out, then swaps in."""
        for device, host, n, i in grant.swaps_out.tolist():
            values = self._get(i, np.arange(device, device + n)).tolist()
            self.away.update(((i, host + k), value) for k, value in enumerate(values))
        self._unmap(grant.unmaps)
        self._map(grant.maps)
        self._move_frames(grant)
        for device, host, n, i in grant.swaps_in.tolist():
            values = [self.away.get((i, host + k), -1) for k in range(n)]
            self._put(i, np.arange(device, device + n), np.array(values))

    def map_beside(self, grant: Grant) -> None:
        super().map_beside(grant)
        self._move_frames(grant)

    def _move_frames(self, grant: Grant) -> None:
        if self._frames is not None:
            self._frames.execute(grant)

    def entries(self, table: IntArray) -> list[tuple[Place, Any]]:
        return [((i, vrange, vpage), (i, page)) for vrange, vpage, page, i in table.tolist()]

    def mapped_units(self) -> int:
        """Return how many of the policy's units, its smallest pages, are mapped anywhere."""
        rows = [[0, 0, page, i] for i, page in set(self.mapped.values())]
        calls = self.allocator.driver_calls(np.array(rows, dtype=np.int64).reshape(-1, 4))
        return sum(n * page_bytes for page_bytes, n in calls.items()) // self.allocator.page_bytes

    def _lose(self, grant: Grant) -> None:
        """What nothing is mapped to is found out by whoever writes there next."""

    def copy(self, grant: Grant) -> None:
        """Execute copies, all sources read before any destination is written."""
        moves = []
        for source, target, n, i in grant.copies.tolist():
            require(n > 0, "copies", "a copy of no slots")
            values = self._get(i, np.arange(source, source + n))
            moves.append((i, np.arange(target, target + n), values))
        written = [i * MANY_SLOTS + targets for i, targets, _ in moves]
        once = not moves or len(np.unique(np.concatenate(written))) == sum(map(len, written))
        require(once, "copies", "two copies of one grant write the same slot")
        for move in moves:
            self._put(*move)

    def places(self, rows: IntArray) -> set[Place]:
        """Return the places that this step reads or writes; none where nothing is mapped."""
        found: set[Place] = set()
        if not self.maps_pages:
            return found
        for i, of in enumerate(self.layer_groups):
            t, pages = self.allocator.layer_pages(i)
            layout = self.allocator.layer_layout(rows, i)
            ends = of.slots(self.allocator.length[rows])
            reads = of.first_read(self.allocator.first_new[rows])
            for base, first, end in zip(layout.base, reads, ends, strict=True):
                columns = range(int(first) // t, -(-int(end) // t))
                found.update((i, int(base) // (t * pages), column) for column in columns)
        return found


def _encoded(of: LayerGroup, values: IntArray) -> IntArray:
    """Return what an encoder's tokens hold for a sequence that begins with these values."""
    return values[0] * of.encoder_tokens + np.arange(of.encoder_tokens)


def _no_hole(
    row: int, layer_group: int, of: LayerGroup, slots: IntArray, first: int, end: int
) -> None:
    missing = first + np.flatnonzero(slots[first:end] < 0)
    text = f"sequence {row} reads {missing.tolist()} of {end} in {_name(layer_group, of)}"
    require(not len(missing) and len(slots) >= end, "no hole", f"{text}, where it has no slot")


def _name(layer_group: int, of: LayerGroup) -> str:
    return f"layer group {layer_group} ({of.kind}{f' {of.window}' if of.window else ''})"
