"""Reservations over arrays: what `Contiguous` does for sequences that stand alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import extents
from allocators.rules.answers import GRANTED, NEVER_FITS, NO_MAPS, REFUSED, Account, Ask, StepMaps
from allocators.rules.extents import Holes, next_power_of_two
from allocators.rules.pages import Number

#: bytes that describe one extent on the device (a base and a length, 64 bits each)
EXTENT_ENTRY_BYTES = 16
MAX, POW2, ORACLE, GROW = range(4)


class ContiguousArrays(NamedTuple):
    """The state of a `Contiguous`, shared with it; `start` and `size` are of each row's extent."""

    holes: Holes
    length: IntArray
    active: np.ndarray
    start: IntArray
    size: IntArray
    reservation: int
    max_len: int
    bytes_per_token: int


# -- admission ---------------------------------------------------------------------------------
def reserved_slots(reservation: int, now: int, prompt: int, output: int, max_len: int) -> int:
    """Return how many slots a sequence reserves that starts with `now`.

    The last output token is never fed, so the true length is one less than prompt + output.
    """
    if reservation == MAX:
        return max_len
    if reservation == POW2:
        return max(now, min(prompt + next_power_of_two(output), max_len))
    if reservation == ORACLE:
        return max(now, prompt + output - 1)
    return min(next_power_of_two(now), max_len)


def lookup(memory: ContiguousArrays, request: int, tokens: int) -> int:
    """Find nothing."""
    return 0


def admit(memory: ContiguousArrays, row: int, ask: Ask) -> int:
    """Start a sequence in `row`; return GRANTED, REFUSED or NEVER_FITS."""
    whole = max(ask.tokens, ask.whole_tokens)
    slots = reserved_slots(
        memory.reservation, whole, ask.prompt_tokens, ask.output_tokens, memory.max_len
    )
    if extents.most(memory.holes, slots) < 1:
        return NEVER_FITS
    start = extents.take(memory.holes, slots)
    if start < 0:
        return REFUSED
    memory.start[row], memory.size[row] = start, slots
    memory.length[row] = ask.tokens
    memory.active[row] = True
    return GRANTED


# -- growth ------------------------------------------------------------------------------------
def grow(memory: ContiguousArrays, rows: IntArray, n: int) -> int:
    """Give each row its next `n` slots, all or nothing; return the slots copied, or REFUSED."""
    length, size = memory.length, memory.size
    full = 0
    for row in rows:
        full += length[row] + n > size[row]
    copied = 0
    if full:
        if memory.reservation != GROW:
            return REFUSED
        copied = _move(memory, rows, n)
        if copied == REFUSED:
            return REFUSED
    for row in rows:
        length[row] += n
    return copied


def doubled(size: int, after: int, max_len: int) -> int:
    """Return the size, doubled as often as needed, that holds `after` slots."""
    while size < after:
        size *= 2
    return max(min(size, max_len), after)


def _move(memory: ContiguousArrays, rows: IntArray, n: int) -> int:
    """Give all rows that are full an extent of twice the size, then take their old ones back."""
    starts, sizes = np.empty(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    copied = 0
    for i in range(len(rows)):
        size, length = memory.size[rows[i]], memory.length[rows[i]]
        if length + n <= size:
            continue
        slots = doubled(size, length + n, memory.max_len)
        starts[i] = extents.take(memory.holes, slots)
        if starts[i] < 0:
            for k in range(i - 1, -1, -1):
                if sizes[k]:
                    extents.give(memory.holes, starts[k], sizes[k])
            return REFUSED
        sizes[i] = slots
        copied += length
    for i in range(len(rows)):
        if sizes[i]:
            row = rows[i]
            extents.give(memory.holes, memory.start[row], memory.size[row])
            memory.start[row], memory.size[row] = starts[i], sizes[i]
    return copied


# -- a step ------------------------------------------------------------------------------------
def begin_step(memory: ContiguousArrays) -> StepMaps:
    """Map nothing."""
    return NO_MAPS


# -- release -----------------------------------------------------------------------------------
def release(memory: ContiguousArrays, row: int) -> None:
    """End a sequence and take its memory back."""
    extents.give(memory.holes, memory.start[row], memory.size[row])
    memory.length[row] = memory.size[row] = memory.start[row] = 0
    memory.active[row] = False


def preempt(memory: ContiguousArrays, row: int) -> None:
    """Take the memory of a sequence that will be back."""
    release(memory, row)


# -- views -------------------------------------------------------------------------------------
def usage(memory: ContiguousArrays, rows: IntArray, finals: IntArray) -> Account:
    """Account for the pool; `rows` are all that are active."""
    written, later, asked = 0, 0, 0
    for i in range(len(rows)):
        length, size = memory.length[rows[i]], memory.size[rows[i]]
        written += length
        later += unwritten(size, length, finals[i])
        asked += size
    capacity, free = memory.holes.capacity, memory.holes.free[0]
    return account(written, later, asked, free, len(rows), capacity, memory.bytes_per_token)


def unwritten(size: Number, length: Number, final: Number) -> Number:
    """Return the slots of an extent that will yet be written."""
    return np.maximum(np.minimum(size, final) - length, 0)


def account(
    written: int,
    later: int,
    asked: int,
    free: int,
    extents_held: int,
    capacity: int,
    bytes_per_token: int,
) -> Account:
    """Return where the bytes are, of slots; takes arrays, [steps], as well as numbers."""
    held = capacity - free
    return Account(
        written * bytes_per_token,
        later * bytes_per_token,
        (asked - written - later) * bytes_per_token,
        (held - asked) * bytes_per_token,
        0,
        free * bytes_per_token,
        extents_held,
        extents_held,
        extents_held * EXTENT_ENTRY_BYTES,
    )


def cached_bytes(memory: ContiguousArrays) -> int:
    """Return what is cached while nothing runs."""
    return 0
