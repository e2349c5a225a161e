"""The queue, the rows and the running batch over arrays, for requests of one sequence each.

What `harness.engine.schedulers.base` and `running` do with objects: here and in the policies of
this folder, and nowhere else, the rules of scheduling are written a second time.
`tests/engine/compiled` holds both to the same steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.rules import families
from allocators.rules.answers import GRANTED, REFUSED, Ask
from harness.engine.compiled.clock import copies_s
from harness.engine.compiled.state import (
    HELD_BACK,
    LET_IN,
    NEVER,
    REFUSED_ALONE,
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


def free_row(state: State, options: Options) -> int:
    """Return the first row that is not in use; -1 if all are."""
    if state.now[0].running == options.max_rows:
        return -1
    row = state.now[0].lowest
    while state.places[row].taken:
        row += 1
    state.now[0].lowest = row
    return row


def leave_row(state: State, row: int) -> None:
    """Note that a row is not in use any more."""
    now = state.now[0]
    state.places[row].taken = 0
    now.lowest = min(now.lowest, row)


def admit_head(arrays: Any, state: State, row: int, ask: Ask) -> int:
    """Let the head of the queue run in a row, if memory agrees; return LET_IN, or what forbids it.

    The coming step is then the first to compute it, unless it had run before.
    """
    now, who = state.now[0], head(state)
    granted = families.admit(arrays, row, ask)
    if granted == GRANTED:
        now.hit_tokens += ask.hit_tokens
        _start(state, row)
        note_scheduled(state, who)
        return LET_IN
    if granted == REFUSED and now.running:
        return HELD_BACK
    now.stuck, now.stuck_tokens, now.stuck_whole_tokens = who, ask.tokens, ask.whole_tokens
    return REFUSED_ALONE if granted == REFUSED else NEVER


def _start(state: State, row: int) -> None:
    """Let the head of the queue run in this row."""
    now, who = state.now[0], head(state)
    request, sequence = state.requests[who], state.sequences[now.running]
    if now.preempted:
        now.preempted -= 1
    else:
        now.next += 1
    state.rows[now.running] = row
    state.finals[now.running] = request.prompt_tokens + request.output_tokens - 1
    sequence.owner = who
    sequence.left = request.output_tokens - request.generated
    sequence.samples = 0
    state.places[row].taken = 1
    now.running += 1


def note_scheduled(state: State, who: int) -> None:
    """Note that the coming step is the first to compute this request, if it is."""
    request = state.requests[who]
    if np.isnan(request.first_scheduled_s):
        request.first_scheduled_s = state.now[0].now_s


# -- growth and preemption ---------------------------------------------------------------------
def grow(arrays: Any, prices: Any, state: State, first: int, stop: int, slots: int) -> bool:
    """Give the sequences at these places their next slots; say whether memory agreed."""
    copied = families.grow(arrays, state.rows[first:stop], slots)
    if copied > 0:
        state.now[0].copy_slots += copied
        state.now[0].copy_s += copies_s(prices, copied)
    return copied >= 0


def preempt_latest(arrays: Any, state: State) -> None:
    """Take the memory of whoever came last and put it at the head of the queue."""
    now = state.now[0]
    now.running -= 1
    row, sequence = state.rows[now.running], state.sequences[now.running]
    request = state.requests[sequence.owner]
    request.generated = request.output_tokens - sequence.left
    request.lost_tokens = arrays.length[row]
    request.preemptions += 1
    families.preempt(arrays, row)
    leave_row(state, row)
    state.places[now.preempted].preempted = sequence.owner
    now.preempted += 1
