"""The `continuous` and `orca` policies over arrays.

Their rules are those of `harness.engine.schedulers.whole_prompts`.
"""

from __future__ import annotations

from typing import Any

from allocators.rules import families
from allocators.rules.answers import Ask
from harness.engine.compiled.clock import NO_WORK, StepWork
from harness.engine.compiled.queue import (
    admit_head,
    arrive,
    free_row,
    grow,
    head,
    preempt_latest,
    waiting,
)
from harness.engine.compiled.state import (
    DONE,
    FULL,
    KEYLESS,
    LET_IN,
    NEVER,
    NOBODY,
    PREEMPTION,
    REFUSED_ALONE,
    SEQUENCES,
    TOKENS,
    Block,
    Options,
    State,
    has_keys,
    has_room,
)
from harness.engine.compiled.step import run_step, wait


def whole_prompts(arrays: Any, prices: Any, options: Options, state: State, block: Block) -> int:
    """Run until all are served or the block is full; return why it stopped."""
    now = state.now[0]
    while now.served < len(state.requests):
        if not has_room(state, block):
            return FULL
        arrive(state)
        if not has_keys(state):
            return KEYLESS
        dropped = 0  # preemptions of plans that came to nothing
        while True:
            preempted, limit, work = _plan(arrays, prices, options, state)
            if limit in (NEVER, REFUSED_ALONE):
                return limit
            if now.running or not preempted:
                break
            dropped += preempted
        if now.running:
            run_step(arrays, prices, options, state, block, work, preempted + dropped, limit)
        else:
            wait(arrays, state)
    return DONE


def _plan(arrays: Any, prices: Any, options: Options, state: State) -> tuple[int, int, StepWork]:
    """Plan a step: prompts, or a token of all that run, or with `beside` both.

    Returns how many were preempted, what kept the next out, and what the step computes.
    """
    now = state.now[0]
    for i in range(now.running):
        state.sequences[i].samples = 0
    preempted, limit, work = 0, PREEMPTION, NO_WORK
    if options.beside:
        preempted = _make_room(arrays, prices, state)
        work = _decode(state)
        if not preempted:
            limit, work = _admit(arrays, options, state, work)
    else:
        limit, work = _admit(arrays, options, state, work)
        if not work.pieces and limit not in (NEVER, REFUSED_ALONE):
            preempted = _make_room(arrays, prices, state)
            work = _decode(state)
            if preempted:
                limit = PREEMPTION
    return preempted, limit, work


def _admit(arrays: Any, options: Options, state: State, work: StepWork) -> tuple[int, StepWork]:
    """Take requests from the queue, in order, while rows, budget and memory last."""
    now = state.now[0]
    pieces, own, read, crossed, squares, longest = 0, 0, 0, 0, 0, work.longest
    answer = NOBODY
    while waiting(state):
        row = free_row(state, options)
        if row < 0:
            answer = SEQUENCES
            break
        who = head(state)
        request = state.requests[who]
        tokens, whole = request.prompt_tokens + request.generated, 0
        if pieces and read + tokens > options.budget_tokens:
            answer = TOKENS
            break
        if options.expected_tokens and now.running:
            expected = request.prompt_tokens + max(options.expected_tokens, request.generated)
            whole = min(expected, options.pool_tokens)
        hit = families.lookup(arrays, who, tokens)
        ask = Ask(tokens, whole, request.prompt_tokens, request.output_tokens, who, hit)
        answer = admit_head(arrays, state, row, ask)
        if answer != LET_IN:
            break
        answer = NOBODY
        state.sequences[now.running - 1].samples = 1
        pieces += 1
        fresh = tokens - hit
        own += fresh
        read += tokens
        crossed += fresh * hit
        squares += fresh * fresh
        longest = max(longest, tokens)
        now.looked_up_tokens += tokens
        if request.generated:
            now.wasted_tokens += fresh - 1  # the token sampled last had not been fed
    return answer, StepWork(
        work.decodes,
        work.context,
        pieces,
        own,
        read,
        crossed,
        squares,
        work.decodes + pieces,
        work.decodes + pieces,
        longest,
    )


def _make_room(arrays: Any, prices: Any, state: State) -> int:
    """Let all that run grow by a token; whoever came last makes room.  Return how many did."""
    preempted, now = 0, state.now[0]
    while now.running and not grow(arrays, prices, state, 0, now.running, 1):
        preempt_latest(arrays, state)
        preempted += 1
    return preempted


def _decode(state: State) -> StepWork:
    """Return the work of a token of each that runs."""
    context, longest, running = 0, 0, state.now[0].running
    for i in range(running):
        state.sequences[i].samples = 1
        length = state.finals[i] - state.sequences[i].left + 1
        context += length
        longest = max(longest, length)
    return StepWork(running, context, 0, 0, 0, 0, 0, running, running, longest)
