"""A step over arrays: executed, accounted for, sampled from; what `Engine` and `Meter` do."""

from __future__ import annotations

from typing import Any

from allocators.rules import families
from allocators.rules.answers import Ended
from harness.engine.compiled import clock
from harness.engine.compiled.clock import StepWork, maps_s
from harness.engine.compiled.queue import release, release_ended, waiting
from harness.engine.compiled.state import (
    ENDED,
    FINALS,
    FREE_BEAMS,
    MEMORY,
    NOBODY,
    POLICY,
    PREEMPTION,
    ROWS,
    SEQUENCES,
    TOKENS,
    Block,
    Options,
    State,
)


def wait(arrays: Any, state: State) -> None:
    """Let the clock run to the next arrival; memory is idle but for what is cached."""
    now = state.now[0]
    until_s = max(now.now_s, state.requests[now.arrived].arrives_s)
    gap_s = until_s - now.now_s
    now.gap_s += gap_s
    now.gap_cached_byte_s += families.cached_bytes(arrays) * gap_s
    now.now_s = now.planned_s = until_s


def run_step(
    arrays: Any,
    prices: Any,
    options: Options,
    state: State,
    block: Block,
    work: StepWork,
    preempted: int,
    limit: int,
) -> None:
    """Execute a planned step, record it, and sample; whoever has ended gives its memory back."""
    now = state.now[0]
    saturated = now.saturated > 0
    step, start_s, batch = block.steps[now.steps], now.now_s, now.running
    entries = batch * options.width
    now.now_s = start_s + _execute(arrays, prices, state, step, work)
    now.planned_s = start_s if options.plans_ahead else now.now_s
    ended = Ended(state.columns[ENDED, : now.ended_rows], now.ended_pages)
    rows, finals = state.columns[ROWS, :entries], state.columns[FINALS, :entries]
    usage = families.usage(arrays, rows, finals, options.width, ended)
    step.copied_bytes = now.copy_slots * options.bytes_per_token
    now.copy_slots = 0
    padded = now.ended_rows
    _sample(arrays, prices, options, state, block)
    step.start_s, step.time_s = start_s, now.now_s
    step.running = now.running
    step.waiting = waiting(state) + _unseen(state)
    step.batched_tokens = work.own + work.decodes - padded
    step.blocks_in_use = usage.pages
    step.preemptions = preempted
    step.hit_tokens = now.hit_tokens
    step.token_bytes = usage.token
    step.reserved_bytes = usage.reserved
    step.internal_bytes = usage.internal
    step.expired_bytes = 0
    step.external_bytes = usage.round_up + usage.free if saturated else usage.round_up
    step.cached_bytes = usage.cached
    step.idle_bytes = 0 if saturated else usage.free
    step.batch = batch
    step.logical_blocks = usage.logical_pages
    step.metadata_bytes = usage.metadata_bytes
    step.saturated = saturated
    step.limited_by_nobody = limit == NOBODY
    step.limited_by_memory = limit == MEMORY
    step.limited_by_sequences = limit == SEQUENCES
    step.limited_by_tokens = limit == TOKENS
    step.limited_by_preemption = limit == PREEMPTION
    step.limited_by_policy = limit == POLICY
    now.all_hit_tokens += now.hit_tokens
    now.hit_tokens = 0
    now.steps += 1


def _execute(arrays: Any, prices: Any, state: State, step: Any, work: StepWork) -> float:
    """Return the seconds of a step, and of what memory does before it and beside it."""
    now = state.now[0]
    blocking_s, before_s, beside_s = now.grant_s, now.grant_maps_s, 0.0
    step.copies_s = now.grant_copies_s
    now.grant_s = now.grant_maps_s = now.grant_copies_s = 0.0
    maps = families.begin_step(arrays)
    if maps.before_maps or maps.before_unmaps:
        seconds = maps_s(prices, maps.before_maps, maps.before_unmaps)
        blocking_s += seconds
        before_s += seconds
        now.map_due_s += seconds
    if maps.beside_maps or maps.beside_unmaps:
        beside_s = maps_s(prices, maps.beside_maps, maps.beside_unmaps)
        now.map_due_s += beside_s
    now.map_s = now.map_due_s
    now.maps_due += maps.before_maps + maps.beside_maps
    now.unmaps_due += maps.before_unmaps + maps.beside_unmaps
    now.maps, now.unmaps = now.maps_due, now.unmaps_due
    priced = clock.step(prices, work)
    whole_s = max(priced.seconds, beside_s)
    software_s = priced.seconds - priced.linear_s - priced.attention_s - priced.all_reduce_s
    step.linear_s, step.attention_s = priced.linear_s, priced.attention_s
    step.all_reduce_s, step.software_s = priced.all_reduce_s, max(software_s, 0.0)
    step.maps_s = before_s + (whole_s - priced.seconds)
    return blocking_s + whole_s


def _sample(arrays: Any, prices: Any, options: Options, state: State, block: Block) -> None:
    """Count the tokens sampled; take whoever has ended out of the batch, in its order."""
    now, width = state.now[0], options.width
    seen_s, kept = now.now_s + options.response_s, 0
    gap_s, alike = 0.0, 0  # of those sampled so far the last had this gap, as had some before it
    if now.ended_rows:
        now.ended_context += now.ended_rows
        now.ended_longest += 1
    for i in range(now.running):
        group = state.groups[i]
        if group.samples:
            request = state.requests[group.owner]
            if group.left == request.output_tokens:
                request.first_token_s = seen_s
            else:
                own_s = now.now_s - request.token_s
                if not own_s <= request.itl_max_s:  # NaN before the first
                    request.itl_max_s = own_s
                if own_s != gap_s:
                    _note_gaps(state, block, gap_s, alike)
                    gap_s, alike = own_s, 0
                alike += 1
            request.token_s = now.now_s
            group.left -= 1
        if not group.left:
            _end(arrays, prices, options, state, block, i, seen_s)
            continue
        if kept < i:
            for k in range(width):
                state.columns[ROWS, kept * width + k] = state.columns[ROWS, i * width + k]
                state.columns[FINALS, kept * width + k] = state.columns[FINALS, i * width + k]
            state.groups[kept].owner = group.owner
            state.groups[kept].left = group.left
            state.groups[kept].forked = group.forked
        kept += 1
    _note_gaps(state, block, gap_s, alike)
    now.running = kept
    if not kept:
        release_ended(arrays, prices, options, state)


def _note_gaps(state: State, block: Block, seconds: float, count: int) -> None:
    """Note that so many requests had a gap of these seconds between two tokens."""
    now = state.now[0]
    if count:
        gap = block.token_gaps[now.token_gaps]
        gap.seconds, gap.count = seconds, count
        now.token_gaps += 1


def _end(
    arrays: Any, prices: Any, options: Options, state: State, block: Block, at: int, seen_s: float
) -> None:
    """Note that a group has ended, and take its memory back; of a static batch with the last."""
    now, group, width = state.now[0], state.groups[at], options.width
    request, rows = state.requests[group.owner], state.columns[ROWS, at * width : (at + 1) * width]
    request.finish_s = seen_s
    if options.static:
        slots = request.prompt_tokens + request.output_tokens
        state.columns[ENDED, now.ended_rows : now.ended_rows + width] = rows
        now.ended_rows += width
        now.ended_context += width * slots
        now.ended_longest = max(now.ended_longest, slots)
        now.ended_pages += families.distinct(arrays, rows)
    else:
        release(arrays, prices, state, rows, width if group.forked else 1)
    if options.beams:
        state.columns[FREE_BEAMS, now.free_beams] = request.beams_at
        now.free_beams += 1
    block.ended[now.ended] = group.owner
    now.ended += 1
    now.served += 1


def _unseen(state: State) -> int:
    """Count those that the scheduler has seen by now and that have not joined the queue."""
    requests, now = state.requests, state.now[0]
    last = now.arrived
    while last < len(requests) and requests[last].arrives_s <= now.now_s:
        last += 1
    return last - now.arrived
