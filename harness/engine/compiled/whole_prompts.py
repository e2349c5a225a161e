"""The `continuous`, `static` and `orca` policies over arrays.

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
    find_rows,
    grow,
    head,
    preempt_latest,
    reassign,
    waiting,
)
from harness.engine.compiled.state import (
    DONE,
    FINALS,
    FULL,
    LET_IN,
    NEVER,
    NOBODY,
    POLICY,
    PREEMPTION,
    REFUSED_ALONE,
    SEQUENCES,
    TOKENS,
    UNFED,
    Block,
    Options,
    State,
    has_room,
    is_fed,
)
from harness.engine.compiled.step import run_step, wait


def whole_prompts(arrays: Any, prices: Any, options: Options, state: State, block: Block) -> int:
    """Run until all are served or the block is full; return why it stopped."""
    now = state.now[0]
    while now.served < len(state.requests):
        if not has_room(state, block):
            return FULL
        arrive(state)
        if not is_fed(state):
            return UNFED
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
        state.groups[i].samples = 0
    preempted, limit, work = 0, PREEMPTION, NO_WORK
    if options.beside:
        now.saturated = 0
        preempted = _make_room(arrays, prices, options, state)
        work = _decode(options, state)
        if not preempted:
            limit, work = _admit(arrays, prices, options, state, work)
    else:
        if options.static and now.running:
            limit = POLICY if waiting(state) else NOBODY
        else:
            limit, work = _admit(arrays, prices, options, state, work)
        if not work.pieces and limit not in (NEVER, REFUSED_ALONE):
            preempted = _make_room(arrays, prices, options, state)
            work = _decode(options, state)
            if preempted:
                limit = PREEMPTION
    return preempted, limit, work


def _admit(
    arrays: Any, prices: Any, options: Options, state: State, work: StepWork
) -> tuple[int, StepWork]:
    """Take groups from the queue, in order, while rows, budget and memory last."""
    now, n = state.now[0], options.width
    pieces, asked, own, read, crossed, squares = 0, 0, 0, 0, 0, 0
    rows, longest = work.decodes, work.longest
    answer, now.saturated = NOBODY, 0
    while waiting(state):
        if not find_rows(options, state):
            answer = SEQUENCES
            break
        who = head(state)
        request = state.requests[who]
        tokens, whole = request.prompt_tokens + request.common, 0
        private = request.generated - request.common
        computed = tokens + n * private
        if pieces and asked + computed > options.budget_tokens:
            answer = TOKENS
            break
        if options.expected_tokens and now.running:
            expected = request.prompt_tokens + max(options.expected_tokens, request.generated)
            whole = min(expected, options.pool_tokens)
        hit, output = families.lookup(arrays, who, tokens), request.output_tokens
        ask = Ask(tokens, whole, request.prompt_tokens, output, private, n, who, hit)
        answer = admit_head(arrays, prices, options, state, n, ask)
        if answer != LET_IN:
            now.saturated = 1
            break
        answer = NOBODY
        state.groups[now.running - 1].samples = 1
        pieces += 1
        rows += n
        fresh = tokens - hit
        asked += computed
        own += computed - hit
        read += tokens
        crossed += fresh * hit
        squares += fresh * fresh
        if private:
            pieces += n
            read += n * (tokens + private)
            crossed += n * tokens * private
            squares += n * private * private
        longest = max(longest, tokens + private)
        now.looked_up_tokens += tokens
        if request.generated:
            # The tokens sampled last had not been fed: computing them is no repetition.
            now.wasted_tokens += computed - hit - (n if private else 1)
    return answer, StepWork(
        work.decodes, work.context, pieces, own, read, crossed, squares, rows, rows, longest
    )


def _make_room(arrays: Any, prices: Any, options: Options, state: State) -> int:
    """Let all that run grow by a token; whoever came last makes room.  Return how many did."""
    preempted, now = 0, state.now[0]
    if options.beams:
        reassign(arrays, prices, options, state)
    while now.running:
        if grow(arrays, prices, options, state, 0, now.running * options.width, 1):
            break
        preempt_latest(arrays, prices, options, state)
        preempted += 1
    return preempted


def _decode(options: Options, state: State) -> StepWork:
    """Return the work of a token of each that runs, and of those that are padded."""
    now, n = state.now[0], options.width
    context, longest, rows = now.ended_context, now.ended_longest, now.ended_rows
    for i in range(now.running):
        group = state.groups[i]
        group.samples = 1
        length = state.columns[FINALS, i * n] - group.left + 1
        context += n * length
        rows += n
        longest = max(longest, length)
    return StepWork(rows, context, 0, 0, 0, 0, 0, rows, rows, longest)
