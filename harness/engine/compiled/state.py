"""What a compiled loop works on: a few arrays, most of them of records, and tuples of them.

All arrays are made once and changed in place, so that a loop can stop anywhere between two steps,
hand over what it has, and go on.  They are few because a compiled call counts references to each
array that it is given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from allocators.base import IntArray
from harness.results.runlog import TIMELINE_COLUMNS

#: why a loop stopped: a block is full, what requests bring along is wanted (keys or beams), all
#: have ended, or a request can never be served
FULL, UNFED, DONE, NEVER, REFUSED_ALONE, REFUSED_FORKED = range(6)
#: how asking the queue ends, if not with such a reason: one was let in, or what keeps the next out
LET_IN, NOBODY, MEMORY, SEQUENCES, TOKENS, PREEMPTION, POLICY = range(6, 13)

#: a request, in order of arrival, and what has become of it so far; `arrives_s` is when the
#: scheduler sees it, `lost_tokens` what its last preemption lost, `common` how many of its tokens
#: its sequences share; `refused_alone` is as of a `Group`, and `beams_at` where its beams stand
REQUEST = np.dtype(
    [
        ("index", np.int64),
        ("arrives_s", np.float64),
        ("prompt_tokens", np.int64),
        ("output_tokens", np.int64),
        ("generated", np.int64),
        ("preemptions", np.int64),
        ("lost_tokens", np.int64),
        ("common", np.int64),
        ("refused_alone", np.int64),
        ("beams_at", np.int64),
        ("first_scheduled_s", np.float64),
        ("first_token_s", np.float64),
        ("finish_s", np.float64),
        ("token_s", np.float64),  # when its last token was sampled
        ("itl_max_s", np.float64),
    ]
)
#: a group that runs: its request, the tokens to come, whether this step samples one, and whether
#: all its sequences exist, or the first computes the prompt for all
GROUP = np.dtype(
    [("owner", np.int64), ("left", np.int64), ("samples", np.int64), ("forked", np.int64)]
)
#: entry i says whether row i is in use, and who was preempted as the i-th of those who still wait
PLACE = np.dtype([("taken", np.int64), ("preempted", np.int64)])
#: where the run stands
NOW = np.dtype(
    [
        ("now_s", np.float64),
        ("planned_s", np.float64),  # what has arrived by then can be in the next step
        ("gap_s", np.float64),
        ("gap_cached_byte_s", np.float64),
        ("map_s", np.float64),
        ("map_due_s", np.float64),  # with what has to be mapped before the next step
        ("grant_s", np.float64),  # of what has to be copied and mapped before the next step
        ("grant_maps_s", np.float64),  # of these seconds those of maps, and of copies
        ("grant_copies_s", np.float64),
        ("copy_slots", np.int64),
        ("preempted", np.int64),  # how many of the preempted wait
        ("next", np.int64),  # the first request that was never let in
        ("arrived", np.int64),  # how many have joined the queue
        ("fed", np.int64),  # how many have what they bring along at hand, if that is wanted
        ("running", np.int64),
        ("lowest", np.int64),  # no row below this one is free
        ("served", np.int64),
        ("steps", np.int64),  # of this block, as are those that ended in it, and token gaps
        ("ended", np.int64),
        ("token_gaps", np.int64),
        ("looked_up_tokens", np.int64),
        ("wasted_tokens", np.int64),
        ("hit_tokens", np.int64),  # of the step that is planned, and of all
        ("all_hit_tokens", np.int64),
        ("maps", np.int64),
        ("unmaps", np.int64),
        ("maps_due", np.int64),
        ("unmaps_due", np.int64),
        ("saturated", np.int64),  # whether memory refused somebody when last asked
        ("free_beams", np.int64),  # entries of `lineage` that nobody has
        # of a static batch: sequences that have ended, their slots with the token to come, the
        # most of them, and the pages in which they have something
        ("ended_rows", np.int64),
        ("ended_context", np.int64),
        ("ended_longest", np.int64),
        ("ended_pages", np.int64),
        ("stuck", np.int64),  # the request that can never be served, and what it asked for
        ("stuck_tokens", np.int64),
        ("stuck_whole_tokens", np.int64),
        ("stuck_private_tokens", np.int64),
        ("stuck_rows", np.int64),
    ]
)
#: a step of the timeline, but for its number
STEP = np.dtype([item for item in TIMELINE_COLUMNS.items() if item[0] != "step"])
#: a gap between two tokens of a request, and how many had it in one step
TOKEN_GAP = np.dtype([("seconds", np.float64), ("count", np.int64)])


#: columns of a state
ROWS, FINALS, PARENTS, ENDED, FREE_BEAMS = range(5)


class Options(NamedTuple):
    """What does not change: limits, and what the front end adds."""

    max_rows: int
    width: int  # sequences of each request
    budget_tokens: int
    expected_tokens: int
    pool_tokens: int
    bytes_per_token: int
    response_s: float
    plans_ahead: bool
    beside: bool  # prompts are computed beside decodes
    static: bool  # a batch is released as one
    beams: bool


class State(NamedTuple):
    """Everything that changes but memory: arrays of the records above.

    Of `groups` the first `running` count, in order of admission.  Each has `width` entries of two
    `columns`, at `width` times its place: `ROWS`, and `FINALS` (slots at the end).  The preempted
    come before all others in the queue, whoever was preempted last first.

    `lineage` [entries, steps, width] says which candidate each one continues at each beam step, of
    a request that has an entry.  More columns: `FREE_BEAMS`, the entries that none has; `PARENTS`,
    scratch; and `ENDED`, the rows of a static batch that have ended, in that order.
    """

    requests: Any
    columns: IntArray
    groups: Any
    places: Any
    lineage: Any
    now: Any


class Block(NamedTuple):
    """What is handed over: steps, who ended in them, in that order, and gaps between tokens."""

    steps: Any
    ended: IntArray
    token_gaps: Any


def has_room(state: State, block: Block) -> bool:
    """Say whether the block takes another step, whoever ends with it."""
    now, most = state.now[0], len(state.groups)
    ends = now.ended + most <= len(block.ended)
    gaps = now.token_gaps + most <= len(block.token_gaps)
    return now.steps < len(block.steps) and ends and gaps


def is_fed(state: State) -> bool:
    """Say whether all that the coming step may let in for the first time have what they need."""
    now = state.now[0]
    at_most = len(state.groups) - now.running - now.preempted
    return now.fed >= min(now.arrived, now.next + at_most)
