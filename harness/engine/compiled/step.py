"""A step over arrays: executed, accounted for, sampled from; what `Engine` and `Meter` do."""

from __future__ import annotations

from typing import Any

from allocators.rules import families
from harness.engine.compiled.clock import StepWork, maps_s, step_s
from harness.engine.compiled.queue import leave_row, waiting
from harness.engine.compiled.state import Block, Options, State


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
    saturated: bool,
) -> None:
    """Execute a planned step, record it, and sample; whoever has ended gives its memory back."""
    now = state.now[0]
    step, start_s, batch = block.steps[now.steps], now.now_s, now.running
    now.now_s = start_s + _execute(arrays, prices, state, work)
    now.planned_s = start_s if options.plans_ahead else now.now_s
    usage = families.usage(arrays, state.rows[:batch], state.finals[:batch])
    step.copied_bytes = now.copy_slots * options.bytes_per_token
    now.copy_slots = 0
    _sample(arrays, options, state, block)
    step.start_s, step.time_s = start_s, now.now_s
    step.running = now.running
    step.waiting = waiting(state) + _unseen(state)
    step.batched_tokens = work.own + work.decodes
    step.blocks_in_use = usage.pages
    step.preemptions = preempted
    step.hit_tokens = now.hit_tokens
    step.token_bytes = usage.token
    step.reserved_bytes = usage.reserved
    step.internal_bytes = usage.internal
    step.external_bytes = usage.round_up + usage.free if saturated else usage.round_up
    step.cached_bytes = usage.cached
    step.idle_bytes = 0 if saturated else usage.free
    step.batch = batch
    step.logical_blocks = usage.logical_pages
    step.metadata_bytes = usage.metadata_bytes
    step.saturated = saturated
    now.all_hit_tokens += now.hit_tokens
    now.hit_tokens = 0
    now.steps += 1


def _execute(arrays: Any, prices: Any, state: State, work: StepWork) -> float:
    """Return the seconds of a step, and of what memory does before it and beside it."""
    now = state.now[0]
    blocking_s, beside_s = now.copy_s, 0.0
    now.copy_s = 0.0
    maps = families.begin_step(arrays)
    if maps.before_maps or maps.before_unmaps:
        before_s = maps_s(prices, maps.before_maps, maps.before_unmaps)
        blocking_s += before_s
        now.map_s += before_s
    if maps.beside_maps or maps.beside_unmaps:
        beside_s = maps_s(prices, maps.beside_maps, maps.beside_unmaps)
        now.map_s += beside_s
    now.maps += maps.before_maps + maps.beside_maps
    now.unmaps += maps.before_unmaps + maps.beside_unmaps
    return blocking_s + max(step_s(prices, work), beside_s)


def _sample(arrays: Any, options: Options, state: State, block: Block) -> None:
    """Count the tokens sampled; take whoever has ended out of the batch, in its order."""
    now = state.now[0]
    seen_s, kept = now.now_s + options.response_s, 0
    gap_s, alike = 0.0, 0  # of those sampled so far the last had this gap, as had some before it
    for i in range(now.running):
        sequence = state.sequences[i]
        if sequence.samples:
            request = state.requests[sequence.owner]
            if sequence.left == request.output_tokens:
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
            sequence.left -= 1
        if not sequence.left:
            _end(arrays, state, block, i, seen_s)
            continue
        if kept < i:
            state.rows[kept], state.finals[kept] = state.rows[i], state.finals[i]
            state.sequences[kept].owner = sequence.owner
            state.sequences[kept].left = sequence.left
        kept += 1
    _note_gaps(state, block, gap_s, alike)
    now.running = kept


def _note_gaps(state: State, block: Block, seconds: float, count: int) -> None:
    """Note that so many requests had a gap of these seconds between two tokens."""
    now = state.now[0]
    if count:
        gap = block.gaps[now.gaps]
        gap.seconds, gap.count = seconds, count
        now.gaps += 1


def _end(arrays: Any, state: State, block: Block, at: int, seen_s: float) -> None:
    """Note that a sequence has ended, and take its memory back."""
    now, row, owner = state.now[0], state.rows[at], state.sequences[at].owner
    state.requests[owner].finish_s = seen_s
    families.release(arrays, row)
    leave_row(state, row)
    block.ended[now.ended] = owner
    now.ended += 1
    now.served += 1


def _unseen(state: State) -> int:
    """Count those that the scheduler has seen by now and that have not joined the queue."""
    requests, now = state.requests, state.now[0]
    last = now.arrived
    while last < len(requests) and requests[last].arrives_s <= now.now_s:
        last += 1
    return last - now.arrived
