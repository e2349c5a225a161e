"""Reservations over arrays: what `Contiguous` does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.base import IntArray
from allocators.rules import extents
from allocators.rules.answers import (
    GRANTED,
    NEVER_FITS,
    NO_MAPS,
    REFUSAL,
    REFUSED,
    Account,
    Answer,
    Ask,
    Ended,
    StepMaps,
)
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


def admit(memory: ContiguousArrays, rows: IntArray, ask: Ask) -> Answer:
    """Start a group: the first of `rows` holds the prompt, the others hold copies of it."""
    whole = max(ask.tokens, ask.whole_tokens)
    to_come = max(0, ask.sequences - len(rows))
    verdict = _place(memory, rows, whole, ask, to_come)
    if verdict != GRANTED:
        return Answer(verdict, 0, 0, 0)
    for row in rows:
        memory.length[row] = ask.tokens + ask.private_tokens
        memory.active[row] = True
    return Answer(GRANTED, (len(rows) - 1) * ask.tokens, 0, 0)


def _place(memory: ContiguousArrays, rows: IntArray, now: int, ask: Ask, to_come: int) -> int:
    """Give each an extent, if there is room for theirs and for `to_come` more like them."""
    slots = reserved_slots(
        memory.reservation,
        now + ask.private_tokens,
        ask.prompt_tokens,
        ask.output_tokens,
        memory.max_len,
    )
    wanted = len(rows) + to_come
    if wanted > extents.most(memory.holes, slots):
        return NEVER_FITS
    starts, refused = np.empty(wanted, dtype=np.int64), False
    for i in range(wanted):
        starts[i] = extents.take(memory.holes, slots)
        if starts[i] < 0:
            wanted, refused = i, True
            break
    keep = 0 if refused else len(rows)
    for i in range(wanted - 1, keep - 1, -1):
        extents.give(memory.holes, starts[i], slots)
    for i in range(keep):
        memory.start[rows[i]], memory.size[rows[i]] = starts[i], slots
    return REFUSED if refused else GRANTED


# -- growth ------------------------------------------------------------------------------------
def grow(memory: ContiguousArrays, rows: IntArray, n: int, width: int) -> Answer:
    """Give each row its next `n` slots, all or nothing."""
    length, size = memory.length, memory.size
    full = 0
    for row in rows:
        full += length[row] + n > size[row]
    copied = 0
    if full:
        if memory.reservation != GROW:
            return REFUSAL
        copied = _move(memory, rows, n)
        if copied == REFUSED:
            return REFUSAL
    for row in rows:
        length[row] += n
    return Answer(GRANTED, copied, 0, 0)


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


# -- sharing -----------------------------------------------------------------------------------
def fork(memory: ContiguousArrays, parent: int, children: IntArray, ask: Ask) -> Answer:
    """Start `children` as copies of what `parent` holds now."""
    length = memory.length[parent]
    verdict = _place(memory, children, length, ask, 0)
    if verdict != GRANTED:
        return Answer(verdict, 0, 0, 0)
    for child in children:
        memory.length[child] = length
        memory.active[child] = True
    return Answer(GRANTED, len(children) * length, 0, 0)


def reassign(memory: ContiguousArrays, rows: IntArray, parents: IntArray, width: int) -> Answer:
    """Let each row continue from the `parents[i]`-th of its group, by a copy."""
    copied = 0
    for i in range(len(rows)):
        if parents[i] != i % width:
            copied += memory.length[rows[i]]
    return Answer(GRANTED, copied, 0, 0)


# -- a step ------------------------------------------------------------------------------------
def begin_step(memory: ContiguousArrays) -> StepMaps:
    """Map nothing."""
    return NO_MAPS


# -- release -----------------------------------------------------------------------------------
def release(memory: ContiguousArrays, row: int) -> int:
    """End a sequence and take its memory back; return the page-groups unmapped."""
    extents.give(memory.holes, memory.start[row], memory.size[row])
    memory.length[row] = memory.size[row] = memory.start[row] = 0
    memory.active[row] = False
    return 0


def preempt(memory: ContiguousArrays, row: int) -> int:
    """Take the memory of a sequence that will be back; return the page-groups unmapped."""
    return release(memory, row)


# -- views -------------------------------------------------------------------------------------
def distinct(memory: ContiguousArrays, rows: IntArray) -> int:
    """Count the extents of one group."""
    return len(rows)


def usage(
    memory: ContiguousArrays, rows: IntArray, finals: IntArray, width: int, ended: Ended
) -> Account:
    """Account for the pool; `rows` and those of `ended` are all that are active."""
    written, later, asked, held = 0, 0, 0, len(ended.rows)
    for i in range(len(rows)):
        length, size = memory.length[rows[i]], memory.size[rows[i]]
        written += length
        later += unwritten(size, length, finals[i])
        asked += size
        held += size > 0  # of a group that is not forked yet the first sequence alone
    for row in ended.rows:
        asked += memory.size[row]
    capacity, free = memory.holes.capacity, memory.holes.free[0]
    return account(written, later, asked, free, held, capacity, memory.bytes_per_token)


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


def sequences_held(memory: ContiguousArrays, prompt: int, output: int) -> int:
    """Return how many sequences of such requests an empty pool holds, that share nothing."""
    kind, longest = memory.reservation, memory.max_len
    return extents.most(memory.holes, reserved_slots(kind, prompt, prompt, output, longest))
