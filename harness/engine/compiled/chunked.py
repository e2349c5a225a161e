"""The `chunked` policy over arrays; its rules are those of `harness.engine.schedulers.chunked`."""

from __future__ import annotations

from typing import Any

from allocators.rules import families
from allocators.rules.answers import GRANTED, Ask
from harness.engine.compiled.clock import StepWork
from harness.engine.compiled.queue import (
    admit_head,
    arrive,
    find_rows,
    grow,
    head,
    note_grant,
    note_scheduled,
    preempt_latest,
    waiting,
)
from harness.engine.compiled.state import (
    DONE,
    FINALS,
    FULL,
    LET_IN,
    NEVER,
    NOBODY,
    PREEMPTION,
    REFUSED_ALONE,
    REFUSED_FORKED,
    ROWS,
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


def chunked(arrays: Any, prices: Any, options: Options, state: State, block: Block) -> int:
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
            now.saturated = 0
            preempted, budget, work = _schedule_running(arrays, prices, options, state)
            limit = PREEMPTION
            if now.stuck >= 0:
                return REFUSED_FORKED
            if not preempted:
                limit, work = _schedule_waiting(arrays, prices, options, state, budget, work)
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
    """Give each running group its slots, in order.

    Returns how many were preempted for that, what is left of the budget, and the work so far.
    Nothing is left for others where a group had to be left out.
    """
    now, n = state.now[0], options.width
    place, preempted = _decode_leading(arrays, prices, options, state)
    budget = options.budget_tokens - n * place
    decodes, context, longest, sampled = n * place, 0, 0, n * place
    for i in range(now.running):
        state.groups[i].samples = i < place
    for i in range(place):
        length = state.columns[FINALS, i * n] - state.groups[i].left + 1
        context += n * length
        longest = max(longest, length)
    pieces, own, read, crossed, squares = 0, 0, 0, 0, 0
    while place < now.running and budget:
        group, first, many = state.groups[place], place * n, n
        past = arrays.length[state.columns[ROWS, first]]
        known = state.columns[FINALS, first] - group.left + 1
        end = known
        if not group.forked:
            end = state.requests[group.owner].prompt_tokens
            if past == end and budget >= n:
                if not _fork(arrays, prices, options, state, place):
                    _preempt(arrays, prices, options, state)
                    preempted += 1
                    continue
                end = known
            else:
                many = 1
        tokens = min(end - past, budget // many)
        if not tokens:
            budget = 0
            break
        if not grow(arrays, prices, options, state, first, first + many, tokens):
            _preempt(arrays, prices, options, state)
            preempted += 1
            continue
        last = past + tokens == known
        longest = max(longest, past + tokens)
        if group.forked and end - past == 1:
            decodes += n
            context += n * known
        else:
            note_scheduled(state, group.owner)
            pieces += many
            own += many * tokens
            read += many * (past + tokens)
            crossed += many * tokens * past
            squares += many * tokens * tokens
        group.samples = last
        sampled += n * last
        budget -= many * tokens
        place += 1
    rows = decodes + pieces
    work = StepWork(decodes, context, pieces, own, read, crossed, squares, sampled, rows, longest)
    return preempted, budget, work


def _decode_leading(arrays: Any, prices: Any, options: Options, state: State) -> tuple[int, int]:
    """Grow those at the front that only decode, in few calls; return how many, and preemptions."""
    now, n, decoding = state.now[0], options.width, 0
    while decoding < min(now.running, options.budget_tokens // n):
        group, first = state.groups[decoding], decoding * n
        known = state.columns[FINALS, first] - group.left + 1
        if not group.forked or known - arrays.length[state.columns[ROWS, first]] != 1:
            break
        decoding += 1
    place, preempted = 0, 0
    while place < decoding:
        place += _grow_leading(arrays, prices, options, state, place, decoding)
        if place < decoding:
            _preempt(arrays, prices, options, state)
            preempted += 1
            decoding = min(decoding, now.running)
    return place, preempted


def _grow_leading(
    arrays: Any, prices: Any, options: Options, state: State, start: int, stop: int
) -> int:
    """Grow these groups by a slot, in order, until one is refused; return how many.

    In the very calls of `ChunkedScheduler._grow_groups`: all at once, then by falling halves.
    """
    n = options.width
    if grow(arrays, prices, options, state, start * n, stop * n, 1):
        return stop - start
    size = 1
    while size < stop - start:
        size *= 2
    size //= 2
    done = start
    while size:
        part = min(done + size, stop)
        if part > done and grow(arrays, prices, options, state, done * n, part * n, 1):
            done = part
        size //= 2
    while done < stop and grow(arrays, prices, options, state, done * n, (done + 1) * n, 1):
        done += 1
    return done - start


def _fork(arrays: Any, prices: Any, options: Options, state: State, place: int) -> bool:
    """Let all sequences of a group go on from its first, which holds the prompt."""
    group, first = state.groups[place], place * options.width
    request = state.requests[group.owner]
    private = request.output_tokens - group.left
    n, output = options.width, request.output_tokens
    ask = Ask(0, 0, request.prompt_tokens, output, private, n, group.owner, 0)
    children = state.columns[ROWS, first + 1 : first + options.width]
    answer = families.fork(arrays, state.columns[ROWS, first], children, ask)
    if answer.verdict != GRANTED:
        return False
    note_grant(prices, state, answer)
    group.forked = 1
    return True


def _preempt(arrays: Any, prices: Any, options: Options, state: State) -> None:
    """Preempt whoever came last; note whoever can never run with all its sequences."""
    now, alone = state.now[0], state.now[0].running == 1
    preempt_latest(arrays, prices, options, state)
    if alone and options.width > 1:
        # Admitted to the empty pool it gets on by one token at least, or never will.
        who = head(state)
        request = state.requests[who]
        if request.refused_alone == request.generated:
            now.stuck = who
        request.refused_alone = request.generated


def _schedule_waiting(
    arrays: Any, prices: Any, options: Options, state: State, budget: int, work: StepWork
) -> tuple[int, StepWork]:
    """Take groups from the queue, in order, while rows, budget and memory last.

    Returns what kept the next one out, and the work.
    """
    now, n = state.now[0], options.width
    pieces, own, read = work.pieces, work.own, work.read
    crossed, squares = work.crossed, work.squares
    sampled, rows, longest = work.sampled, work.rows, work.longest
    answer = NOBODY
    while waiting(state):
        has_rows = find_rows(options, state)
        if not has_rows or not budget:
            answer = TOKENS if has_rows else SEQUENCES
            break
        who = head(state)
        request = state.requests[who]
        known = request.prompt_tokens + request.generated
        end = known if n == 1 else request.prompt_tokens
        hit, output = families.lookup(arrays, who, end), request.output_tokens
        tokens = min(end, hit + budget)
        ask = Ask(tokens, known, request.prompt_tokens, output, 0, n, who, hit)
        answer = admit_head(arrays, prices, options, state, 1, ask)
        if answer != LET_IN:
            now.saturated = 1
            break
        answer = NOBODY
        state.groups[now.running - 1].samples = tokens == known
        sampled += n * (tokens == known)
        pieces += 1
        rows += 1
        fresh = tokens - hit
        own += fresh
        read += tokens
        crossed += fresh * hit
        squares += fresh * fresh
        longest = max(longest, tokens)
        budget -= fresh
        now.looked_up_tokens += end
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
