"""The queue, the rows and the running batch over arrays.

What `harness.engine.schedulers.base` and `running` do with objects: here and in the policies of
this folder, and nowhere else, the rules of scheduling are written a second time.
`tests/engine/compiled` holds both to the same steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.base import IntArray
from allocators.rules import families
from allocators.rules.answers import GRANTED, REFUSED, Answer, Ask
from harness.engine.compiled.clock import copies_s, maps_s
from harness.engine.compiled.state import (
    ENDED,
    FINALS,
    LET_IN,
    MEMORY,
    NEVER,
    PARENTS,
    REFUSED_ALONE,
    ROWS,
    Options,
    State,
)


# -- the queue ---------------------------------------------------------------------------------
def arrive(state: State) -> None:
    """Let those whose time has come join the tail of the queue."""
    requests, now = state.requests, state.now[0]
    while now.arrived < len(requests) and requests[now.arrived].arrives_s <= now.planned_s:
        now.arrived += 1


def waiting(state: State) -> int:
    """Return how many wait."""
    now = state.now[0]
    return now.preempted + now.arrived - now.next


def head(state: State) -> int:
    """Return who is at the head of the queue: whoever was preempted last, else the next new one."""
    now = state.now[0]
    return state.places[now.preempted - 1].preempted if now.preempted else now.next


def find_rows(options: Options, state: State) -> bool:
    """Put the first rows that are not in use behind those that run; say if there are enough."""
    now = state.now[0]
    first = now.running * options.width
    if first + options.width > options.max_rows:
        return False
    row = now.lowest
    for place in range(first, first + options.width):
        while state.places[row].taken:
            row += 1
        if place == first:
            now.lowest = row
        state.columns[ROWS, place] = row
        row += 1
    return True


def leave_row(state: State, row: int) -> None:
    """Note that a row is not in use any more."""
    now = state.now[0]
    state.places[row].taken = 0
    now.lowest = min(now.lowest, row)


def admit_head(
    arrays: Any, prices: Any, options: Options, state: State, sequences: int, ask: Ask
) -> int:
    """Let so many sequences of the head of the queue run in the rows found, if memory agrees.

    Returns LET_IN, or what forbids it.  The coming step is then the first to compute it, unless it
    had run before.
    """
    now, who = state.now[0], head(state)
    first = now.running * options.width
    answer = families.admit(arrays, state.columns[ROWS, first : first + sequences], ask)
    if answer.verdict == GRANTED:
        now.hit_tokens += ask.hit_tokens
        note_grant(prices, state, answer)
        _start(options, state, sequences)
        note_scheduled(state, who)
        return LET_IN
    if answer.verdict == REFUSED and now.running:
        return MEMORY
    now.stuck, now.stuck_tokens, now.stuck_whole_tokens = who, ask.tokens, ask.whole_tokens
    now.stuck_private_tokens, now.stuck_rows = ask.private_tokens, sequences
    return REFUSED_ALONE if answer.verdict == REFUSED else NEVER


def _start(options: Options, state: State, sequences: int) -> None:
    """Let the head of the queue run in the rows found, with so many of its sequences."""
    now, who = state.now[0], head(state)
    request, group = state.requests[who], state.groups[now.running]
    if now.preempted:
        now.preempted -= 1
    else:
        now.next += 1
    first = now.running * options.width
    for place in range(first, first + options.width):
        state.columns[FINALS, place] = request.prompt_tokens + request.output_tokens - 1
        state.places[state.columns[ROWS, place]].taken = 1
    group.owner = who
    group.left = request.output_tokens - request.generated
    group.samples = 0
    group.forked = sequences == options.width
    now.running += 1


def note_scheduled(state: State, who: int) -> None:
    """Note that the coming step is the first to compute this request, if it is."""
    request = state.requests[who]
    if np.isnan(request.first_scheduled_s):
        request.first_scheduled_s = state.now[0].now_s


def note_grant(prices: Any, state: State, answer: Answer) -> None:
    """Note what memory has to do before the next step."""
    now, mapping_s, copying_s = state.now[0], 0.0, 0.0
    if answer.maps or answer.unmaps:
        mapping_s = maps_s(prices, answer.maps, answer.unmaps)
        now.map_due_s += mapping_s
        now.maps_due += answer.maps
        now.unmaps_due += answer.unmaps
    if answer.copied:
        copying_s = copies_s(prices, answer.copied)
        now.copy_slots += answer.copied
    now.grant_s += mapping_s + copying_s
    now.grant_maps_s += mapping_s
    now.grant_copies_s += copying_s


# -- growth and preemption ---------------------------------------------------------------------
def grow(
    arrays: Any, prices: Any, options: Options, state: State, first: int, stop: int, slots: int
) -> bool:
    """Give the sequences at these entries their next slots; say whether memory agreed."""
    answer = families.grow(arrays, state.columns[ROWS, first:stop], slots, options.width)
    if answer.verdict != GRANTED:
        return False
    if answer.copied or answer.unmaps:
        note_grant(prices, state, answer)
    return True


def reassign(arrays: Any, prices: Any, options: Options, state: State) -> None:
    """Let each beam go on from its parent."""
    now, width, moved = state.now[0], options.width, False
    for i in range(now.running):
        group = state.groups[i]
        request = state.requests[group.owner]
        step = request.output_tokens - group.left - 1
        for k in range(width):
            parent = state.lineage[request.beams_at, step, k]
            state.columns[PARENTS, i * width + k] = parent
            moved = moved or parent != k
    if moved:
        stop = now.running * width
        rows, parents = state.columns[ROWS, :stop], state.columns[PARENTS, :stop]
        note_grant(prices, state, families.reassign(arrays, rows, parents, width))


def preempt_latest(arrays: Any, prices: Any, options: Options, state: State) -> None:
    """Take the memory of whoever came last and put it at the head of the queue."""
    now, width = state.now[0], options.width
    now.running -= 1
    group, first = state.groups[now.running], now.running * width
    request = state.requests[group.owner]
    request.generated = request.output_tokens - group.left
    request.common = _common_tokens(options, state, request.beams_at, request.generated)
    computed = arrays.length[state.columns[ROWS, first]]
    shared = min(computed, request.prompt_tokens)
    request.lost_tokens = shared + width * (computed - shared)
    request.preemptions += 1
    unmaps = 0
    for k in range(width):
        row = state.columns[ROWS, first + k]
        if not k or group.forked:
            unmaps += families.preempt(arrays, row)
        leave_row(state, row)
    note_grant(prices, state, Answer(GRANTED, 0, 0, unmaps))
    state.places[now.preempted].preempted = group.owner
    now.preempted += 1
    now.saturated = 1
    if not now.running:
        release_ended(arrays, prices, options, state)


def _common_tokens(options: Options, state: State, beams_at: int, generated: int) -> int:
    """Return how many of its generated tokens all sequences of a group share."""
    if options.width == 1:
        return generated
    if not options.beams:
        return 0
    ancestors = np.arange(options.width)
    for step in range(generated - 1, 0, -1):
        alike = True
        for k in range(options.width):
            ancestors[k] = state.lineage[beams_at, step, ancestors[k]]
            alike = alike and ancestors[k] == ancestors[0]
        if alike:
            return step
    return 0


def release_ended(arrays: Any, prices: Any, options: Options, state: State) -> None:
    """Give back the memory of a static batch, group by group."""
    now = state.now[0]
    for first in range(0, now.ended_rows, options.width):
        rows = state.columns[ENDED, first : first + options.width]
        release(arrays, prices, state, rows, options.width)
    now.ended_rows = now.ended_context = now.ended_longest = now.ended_pages = 0


def release(arrays: Any, prices: Any, state: State, rows: IntArray, sequences: int) -> None:
    """Give the rows of a group that has ended back, and the memory of so many of them."""
    unmaps = 0
    for i in range(len(rows)):
        if i < sequences:
            unmaps += families.release(arrays, rows[i])
        leave_row(state, rows[i])
    note_grant(prices, state, Answer(GRANTED, 0, 0, unmaps))
