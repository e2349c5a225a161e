"""The `chunked` policy over arrays; its rules are those of `harness.engine.schedulers.chunked`."""

from __future__ import annotations

from typing import Any

from allocators.rules import families
from allocators.rules.answers import Ask
from harness.engine.compiled.clock import StepWork
from harness.engine.compiled.queue import (
    admit_head,
    arrive,
    free_row,
    grow,
    head,
    note_scheduled,
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


def chunked(arrays: Any, prices: Any, options: Options, state: State, block: Block) -> int:
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
            preempted, budget, work = _schedule_running(arrays, prices, options, state)
            limit = PREEMPTION
            if not preempted:
                limit, work = _schedule_waiting(arrays, options, state, budget, work)
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


def _schedule_running(
    arrays: Any, prices: Any, options: Options, state: State
) -> tuple[int, int, StepWork]:
    """Give each running sequence its slots, in order.

    Returns how many were preempted for that, what is left of the budget, and the work so far.
    """
    now = state.now[0]
    place, preempted = _decode_leading(arrays, prices, options, state)
    budget = options.budget_tokens - place
    decodes, context, longest, sampled = place, 0, 0, place
    for i in range(now.running):
        state.sequences[i].samples = i < place
    for i in range(place):
        length = state.finals[i] - state.sequences[i].left + 1
        context += length
        longest = max(longest, length)
    pieces, own, read, crossed, squares = 0, 0, 0, 0, 0
    while place < now.running and budget:
        sequence = state.sequences[place]
        past = arrays.length[state.rows[place]]
        known = state.finals[place] - sequence.left + 1
        tokens = min(known - past, budget)
        if not grow(arrays, prices, state, place, place + 1, tokens):
            preempt_latest(arrays, state)
            preempted += 1
            continue
        last = past + tokens == known
        longest = max(longest, past + tokens)
        if known - past == 1:
            decodes += 1
            context += known
        else:
            note_scheduled(state, sequence.owner)
            pieces += 1
            own += tokens
            read += past + tokens
            crossed += tokens * past
            squares += tokens * tokens
        sequence.samples = last
        sampled += last
        budget -= tokens
        place += 1
    rows = decodes + pieces
    work = StepWork(decodes, context, pieces, own, read, crossed, squares, sampled, rows, longest)
    return preempted, budget, work


def _decode_leading(arrays: Any, prices: Any, options: Options, state: State) -> tuple[int, int]:
    """Grow those at the front that only decode, in few calls; return how many, and preemptions."""
    now, decoding = state.now[0], 0
    while decoding < min(now.running, options.budget_tokens):
        known = state.finals[decoding] - state.sequences[decoding].left + 1
        if known - arrays.length[state.rows[decoding]] != 1:
            break
        decoding += 1
    place, preempted = 0, 0
    while place < decoding:
        place += _grow_leading(arrays, prices, state, place, decoding)
        if place < decoding:
            preempt_latest(arrays, state)
            preempted += 1
            decoding = min(decoding, now.running)
    return place, preempted


def _grow_leading(arrays: Any, prices: Any, state: State, start: int, stop: int) -> int:
    """Grow these by a slot, in order, until one is refused; return how many.

    In the very calls of `ChunkedScheduler._grow_groups`: all at once, then by falling halves.
    """
    if grow(arrays, prices, state, start, stop, 1):
        return stop - start
    size = 1
    while size < stop - start:
        size *= 2
    size //= 2
    done = start
    while size:
        part = min(done + size, stop)
        if part > done and grow(arrays, prices, state, done, part, 1):
            done = part
        size //= 2
    while done < stop and grow(arrays, prices, state, done, done + 1, 1):
        done += 1
    return done - start


def _schedule_waiting(
    arrays: Any, options: Options, state: State, budget: int, work: StepWork
) -> tuple[int, StepWork]:
    """Take requests from the queue, in order, while rows, budget and memory last.

    Returns what kept the next one out, and the work.
    """
    now = state.now[0]
    pieces, own, read = work.pieces, work.own, work.read
    crossed, squares = work.crossed, work.squares
    sampled, rows, longest = work.sampled, work.rows, work.longest
    answer = NOBODY
    while waiting(state):
        row = free_row(state, options)
        if row < 0 or not budget:
            answer = SEQUENCES if row < 0 else TOKENS
            break
        who = head(state)
        request = state.requests[who]
        known = request.prompt_tokens + request.generated
        hit = families.lookup(arrays, who, known)
        tokens = min(known, hit + budget)
        ask = Ask(tokens, known, request.prompt_tokens, request.output_tokens, who, hit)
        answer = admit_head(arrays, state, row, ask)
        if answer != LET_IN:
            break
        answer = NOBODY
        state.sequences[now.running - 1].samples = tokens == known
        sampled += tokens == known
        pieces += 1
        rows += 1
        fresh = tokens - hit
        own += fresh
        read += tokens
        crossed += fresh * hit
        squares += fresh * fresh
        longest = max(longest, tokens)
        budget -= fresh
        now.looked_up_tokens += known
        now.wasted_tokens += max(0, request.lost_tokens - hit)
        request.lost_tokens = 0
    return answer, StepWork(
        work.decodes,
        work.context,
        pieces,
        own,
        read,
        crossed,
        squares,
        sampled,
        rows,
        longest,
    )
