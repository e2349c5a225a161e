"""The `static` policy runs a batch to completion and holds all of its memory until then."""

from dataclasses import replace

import numpy as np
import pytest

from allocators.paged import Paged
from tests.engine.cases import MODES, POOL, Spy, allocators, drawn, make, roofline, run, table

ALLOCATORS = allocators()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALLOCATORS)
def test_nobody_joins_a_batch_before_its_last_sequence_has_ended(name, mode):
    allocator = ALLOCATORS[name]()
    engine = make(
        allocator,
        drawn(20, "poisson", 1.0, seed=2),
        MODES[mode],
        roofline(allocator),
        policy="static",
        max_num_seqs=20,
    )
    spy = Spy(engine)
    log = engine.run("x")
    log.check()
    assert len(spy.prefill_batches) > 1
    assert not any(beside for beside, _ in spy.prefill_batches)
    r = log.requests
    for _, batch in spy.prefill_batches:
        # Each batch starts when the one before has ended, to the last sequence.
        start_s = r["first_scheduled_s"][batch].max()
        before = r["first_scheduled_s"] < r["first_scheduled_s"][batch].min()
        assert (r["finish_s"][before] <= start_s).all()


def test_an_ended_sequence_keeps_its_blocks_and_they_are_waste():
    prompts, outputs, block = [5, 9, 1], [3, 1, 8], 4
    log = run(
        Paged(POOL, block_size=block), table(prompts, outputs), MODES["greedy"], policy="static"
    )
    t, per_token = log.timeline, POOL.bytes_per_token
    assert log.steps == max(outputs)
    assert t["running"].tolist() == [2, 2, 1, 1, 1, 1, 1, 0]
    assert t["batched_tokens"].tolist() == [15, 2, 2, 1, 1, 1, 1, 1]
    for step in range(log.steps):
        held = token = reserved = 0
        for prompt, output in zip(prompts, outputs, strict=True):
            slots = prompt + min(step, output - 1)
            blocks = -(-slots // block)
            held += blocks
            if step < output:  # it samples a token in this step, so it is alive
                token += slots
                reserved += min(prompt + output - 1, blocks * block) - slots
        assert t["blocks_in_use"][step] == held
        assert t["token_bytes"][step] == token * per_token
        assert t["reserved_bytes"][step] == reserved * per_token
        assert t["internal_bytes"][step] == (held * block - token - reserved) * per_token


@pytest.mark.parametrize("name", ALLOCATORS)
def test_what_is_held_never_shrinks_within_a_batch(name):
    outputs = [2, 30, 7, 1, 18]
    log = run(ALLOCATORS[name](), table([9] * 5, outputs), MODES["greedy"], policy="static")
    t = log.timeline
    together = int(t["batch"][0])
    batch = outputs[:together]
    steps = max(batch)
    held = t["token_bytes"] + t["reserved_bytes"] + t["internal_bytes"]
    assert (np.diff(held[:steps]) >= 0).all()
    assert (np.diff(t["blocks_in_use"][:steps]) >= 0).all()
    for step in range(steps):
        alive = [output for output in batch if output > step]
        assert t["batch"][step] == len(alive)
        assert t["token_bytes"][step] == (9 + step) * len(alive) * POOL.bytes_per_token


def test_ended_sequences_are_computed_as_padding():
    """A row that has ended costs as much as one that decodes, so a batch never gets faster."""
    allocator = Paged(POOL)
    requests = table([10] * 6, [2, 3, 4, 5, 6, 40])
    log = run(allocator, requests, MODES["greedy"], roofline(allocator), policy="static")
    seconds = (log.timeline["time_s"] - log.timeline["start_s"])[1:]
    assert (np.diff(seconds) > -1e-12).all()
    allocator = Paged(POOL)
    log = run(allocator, requests, MODES["greedy"], roofline(allocator))
    seconds = (log.timeline["time_s"] - log.timeline["start_s"])[1:]
    assert (np.diff(seconds) < 0).any()


def test_static_under_pressure_preempts_and_starts_the_next_batch_with_the_preempted():
    allocator = Paged(POOL, block_size=4)
    requests = table([30] * 10, [34] * 10)
    engine = make(allocator, requests, MODES["greedy"], policy="static")
    spy = Spy(engine)
    log = engine.run("x")
    log.check()
    assert log.timeline["preemptions"].sum()
    firsts = [batch[0] for _, batch in spy.prefill_batches]
    assert firsts == sorted(firsts)
    assert all(spy.sampled_tokens[i] == 34 for i in range(10))


def test_memory_and_not_the_tokens_of_a_step_bounds_a_batch():
    """120 prompts of 30 tokens fit; a budget that cut the batch could never be made up for."""
    pool = replace(POOL, capacity_tokens=120 * 30, max_seqs=200)
    many = table([30] * 150, [1] * 150)
    log = run(Paged(pool, block_size=1), many, MODES["greedy"], policy="static")
    assert log.timeline["batch"].tolist() == [120, 30]
    assert log.timeline["saturated"].tolist() == [True, False]
    cut = run(
        Paged(pool, block_size=1),
        many,
        MODES["greedy"],
        policy="static",
        max_num_batched_tokens=1500,
    )
    assert cut.timeline["batch"].tolist() == [50, 50, 50]
