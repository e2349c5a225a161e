"""A model of memory that executes grants: which value each physical slot holds, what is mapped.

Every token that is written gets a value of its own, so a slot that two sequences write, a copy that
is missing or too short, and a stale mapping all show as a wrong value at some position.  Tokens of
known ids get a value that stands for their whole prefix, as their KV does: a prefix hit is honest
if the slots it names already hold those values.

Host memory is a second array, which only swaps write and read.  A page-group that is mapped
nowhere after a grant's maps loses what it held.

What goes on beside a step may be done at any time from `map_beside` to `wait`; here it comes last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.base import EMPTY_GRANT, Allocator, BlockTable, Grant, IntArray, Layout

#: a page of a virtual range: (virtual range, page-group of it)
Place = tuple[int, ...]


class Violation(AssertionError):
    """An allocator broke an invariant; the text says which and how."""


def require(holds: bool, invariant: str, text: str) -> None:
    if not holds:
        raise Violation(f"{invariant}: {text}")


def same_length(row: int, agrees: bool, length: int, expected: IntArray) -> None:
    """Require that a row is as long as was granted."""
    text = f"sequence {row} is {length} long and {len(expected)} were granted"
    require(agrees and length == len(expected), "addressing", text)


def same_place(row: int, layout: bool, twin: bool) -> None:
    """Require that a row's slots are those of its layout, and those that a twin has."""
    require(layout, "addressing", f"layout and addresses differ for sequence {row}")
    text = f"a twin with the same calls put sequence {row} elsewhere"
    require(twin, "deterministic", text)


def own_tokens(row: int, wrong: IntArray, length: int) -> None:
    """Require that nothing is wrong at any position of a row."""
    text = (
        f"sequence {row} does not read back its own tokens at positions {wrong.tolist()} of "
        f"{length} (a write, copy, map or swap went wrong)"
    )
    require(not len(wrong), "single writer", text)


class SlotMemory:
    """Values by physical slot, and the page table place -> page-group.

    `step_maps` are the places that the present step has mapped page-groups at, `step_writes` the
    page-groups that it has written.
    """

    def __init__(self, allocator: Allocator) -> None:
        self.allocator, self.geometry = allocator, allocator.geometry
        self.maps_pages = allocator.pages_per_group > 0
        self.range_pages, self.range_tokens = allocator.range_pages, allocator.range_tokens
        # Where tokens run over page ends a range may have room for some behind its whole pages'.
        whole_tokens = self.range_pages * self.geometry.page_tokens
        self.tail_tokens = max(0, self.geometry.max_len - whole_tokens) if self.maps_pages else 0
        self.first_tail = sum(allocator.balance()) * self.geometry.page_tokens
        self.num_slots = self.geometry.capacity_tokens
        if self.tail_tokens:
            self.num_slots = self.first_tail + self.geometry.max_seqs * self.tail_tokens
        self.values: IntArray = np.full(self.num_slots, -1, dtype=np.int64)
        self.host: IntArray = np.full(self.geometry.host_tokens, -1, dtype=np.int64)
        self._begin()

    # -- values ------------------------------------------------------------------------------
    def _begin(self) -> None:
        """Map nothing, and start counting values."""
        self.mapped: dict[Place, Any] = {}
        self.step_maps: dict[Any, set[Place]] = {}
        self.step_writes: set[Any] = set()
        self._beside = EMPTY_GRANT
        self._next_value = 0
        self._prefixes: dict[tuple[int, ...], int] = {}

    def fresh(self, n: int) -> IntArray:
        self._next_value += n
        return np.arange(self._next_value - n, self._next_value, dtype=np.int64)

    def prefix_values(self, token_ids: IntArray) -> IntArray:
        """Return the value of each prefix of `token_ids`, [tokens]; equal prefixes, equal value."""
        ids = tuple(token_ids.tolist())
        for end in range(1, len(ids) + 1):
            if ids[:end] not in self._prefixes:
                self._prefixes[ids[:end]] = int(self.fresh(1)[0])
        return np.array([self._prefixes[ids[:end]] for end in range(1, len(ids) + 1)])

    def write(self, slots: IntArray, values: IntArray) -> None:
        self.check_slots(slots)
        self._set(slots, values)

    def _set(self, slots: IntArray, values: IntArray) -> None:
        self.values[slots] = values
        if self.maps_pages:
            self.step_writes.update((slots // self.geometry.page_tokens).tolist())

    def check_slots(self, slots: IntArray) -> None:
        if len(slots) and not 0 <= slots.min() <= slots.max() < self.num_slots:
            raise Violation(f"addressing: slots outside the pool: {slots.tolist()}")

    def mapped_units(self) -> int:
        """Return how many of the policy's units are mapped anywhere."""
        return len(set(self.mapped.values()))

    # -- sequences ---------------------------------------------------------------------------
    def write_tokens(self, row: int, first: int, values: IntArray) -> None:
        """Write what positions from `first` on hold, wherever the row then has them."""
        self.write(self.allocator.addresses(row)[first : first + len(values)], values)

    def require_hit(self, row: int, values: IntArray) -> None:
        """Require that the first positions of a row hold these values already."""
        slots = self.allocator.addresses(row)[: len(values)]
        self.check_slots(slots)
        wrong = np.flatnonzero(self.values[slots] != values)
        text = f"of {len(values)} cached tokens those at {wrong.tolist()} are not in memory"
        require(not len(wrong), "honest hit", text)

    def read_back(self, tokens: dict[int, IntArray], twin: Allocator) -> list[IntArray]:
        """Require that each row reads back its tokens, where a twin has them; return the slots."""
        found = self.resolve(self.allocator.layout(np.array(list(tokens), dtype=np.int64)))
        for (row, expected), slots in zip(tokens.items(), found, strict=True):
            length = int(self.allocator.length[row])
            same_length(row, length == len(slots), length, expected)
            own = self.allocator.addresses(row)
            same_place(row, np.array_equal(own, slots), np.array_equal(own, twin.addresses(row)))
            self.check_slots(slots)
            own_tokens(row, np.flatnonzero(self.values[slots] != expected), length)
        return found

    def held_bytes(self, found: list[IntArray]) -> tuple[int, int]:
        """Return the bytes that hold tokens of these rows, and those of them that are expired."""
        distinct = len(np.unique(np.concatenate(found))) if found else 0
        return distinct * self.geometry.bytes_per_token, 0

    # -- grants ------------------------------------------------------------------------------
    def map(self, grant: Grant) -> None:
        """Execute swaps out, unmaps, maps, then swaps in."""
        device, host = self._swapped(grant.swaps_out, "swap out")
        require(len(np.unique(host)) == len(host), "swaps", "two swaps out write one host slot")
        self.host[host] = self.values[device]
        self._unmap(grant.unmaps)
        self._map(grant.maps)
        self._lose(grant)
        device, host = self._swapped(grant.swaps_in, "swap in")
        require(len(np.unique(device)) == len(device), "swaps", "two swaps in write one slot")
        self._set(device, self.host[host])

    def map_beside(self, grant: Grant) -> None:
        """Begin what a thread does while the step computes."""
        self._beside = grant

    def wait(self) -> None:
        """Wait for it: the step is over."""
        beside, self._beside = self._beside, EMPTY_GRANT
        self._unmap(beside.unmaps)
        self._map(beside.maps)
        self._lose(beside)
        self.step_maps.clear()
        self.step_writes.clear()

    def _swapped(self, swaps: IntArray, what: str) -> tuple[IntArray, IntArray]:
        """Return the device slot and the host slot of each slot that is moved."""
        if not len(swaps):
            return swaps[:, 0], swaps[:, 1]
        device, host, n = swaps.T
        require(bool((n > 0).all()), "swaps", f"a {what} of no slots")
        device, host = _each(device, n), _each(host, n)
        self.check_slots(device)
        inside = bool(((host >= 0) & (host < len(self.host))).all())
        require(inside, "swaps", f"a {what} beyond the {len(self.host)} slots of host memory")
        if self.maps_pages:
            pages = set((device // self.geometry.page_tokens).tolist())
            lost = pages.difference(self.mapped.values())
            require(not lost, "mapping", f"a {what} at {sorted(lost)}, which are mapped nowhere")
        return device, host

    def entries(self, table: IntArray) -> list[tuple[Place, Any]]:
        """Return the place of each row of a grant's maps or unmaps, and its page-group."""
        return [((vrange, vpage), page) for vrange, vpage, page in table.tolist()]

    def _unmap(self, unmaps: IntArray) -> None:
        for place, page in self.entries(unmaps):
            held = self.mapped.pop(place, None)
            text = f"unmap of page {page} at {place}, where {held} is mapped"
            require(held == page, "mapping", text)
            self.step_maps.get(page, set()).discard(place)

    def _lose(self, grant: Grant) -> None:
        """Forget the page-groups that are mapped nowhere now; one that only moves keeps its own."""
        gone, t = set(grant.unmaps[:, 2].tolist()), self.geometry.page_tokens
        if gone:
            gone.difference_update(self.mapped.values())
        for page in gone:
            self.values[page * t : (page + 1) * t] = -1

    def _map(self, maps: IntArray) -> None:
        require(self.maps_pages or not len(maps), "mapping", "maps from a policy without pages")
        for place, page in self.entries(maps):
            require(place not in self.mapped, "mapping", f"{place} is mapped twice")
            self.mapped[place] = page
            self.step_maps.setdefault(page, set()).add(place)

    def copy(self, grant: Grant) -> None:
        """Execute copies, all sources read before any destination is written."""
        if not len(grant.copies):
            return
        src, dst, n = grant.copies.T
        require(bool((n > 0).all()), "copies", "a copy of no slots")
        read, written = _each(src, n), _each(dst, n)
        self.check_slots(read)
        self.check_slots(written)
        once = len(np.unique(written)) == len(written)
        require(once, "copies", "two copies of one grant write the same slot")
        self._set(written, self.values[read])

    # -- addresses ---------------------------------------------------------------------------
    def places(self, rows: IntArray) -> set[Place]:
        """Return the places that these rows use; none where nothing is mapped."""
        layout = self.allocator.layout(rows)
        if isinstance(layout, BlockTable) or not self.maps_pages:
            return set()
        t = self.geometry.page_tokens
        return {
            (base // self.range_tokens, vpage)
            for base, length in zip(layout.base.tolist(), layout.lengths.tolist(), strict=True)
            for vpage in range(min(-(-length // t), self.range_pages))
        }

    def resolve(self, layout: Layout) -> list[IntArray]:
        """Return the physical slot of each position of each row, as a kernel would find it.

        Virtual range number r begins at r * range_tokens, and its tail at r * tail_tokens behind
        the slots of all page-groups.
        """
        t = self.geometry.page_tokens
        positions = [np.arange(n) for n in layout.lengths.tolist()]
        if isinstance(layout, BlockTable):
            require(layout.page_tokens == t, "addressing", "block table of another page size")
            return [row[p // t] * t + p % t for row, p in zip(layout.table, positions, strict=True)]
        bases = layout.base.tolist()
        if not self.maps_pages:
            return [base + p for base, p in zip(bases, positions, strict=True)]
        return [self._translate(base, len(p)) for base, p in zip(bases, positions, strict=True)]

    def _translate(self, base: int, length: int) -> IntArray:
        t, (vrange, offset) = self.geometry.page_tokens, divmod(base, self.range_tokens)
        require(offset == 0, "addressing", f"slot {base} is not where a virtual range begins")
        whole = min(length, self.range_pages * t)
        pages = []
        for vpage in range(-(-whole // t)):
            page = self.mapped.get((vrange, vpage))
            require(page is not None, "mapping", f"{(vrange, vpage)} is in use but not mapped")
            pages.append(page)
        at, first = np.arange(whole), self.first_tail + vrange * self.tail_tokens
        slots = np.array(pages, dtype=np.int64)[at // t] * t + at % t
        return np.concatenate([slots, first + np.arange(length - whole)])


def _each(starts: IntArray, counts: IntArray) -> IntArray:
    """Return the `counts[i]` slots from `starts[i]` on, one row after the other."""
    return np.repeat(starts, counts) + np.concatenate([np.arange(n) for n in counts])
