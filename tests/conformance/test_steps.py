"""A trial plans calls as one step, and writes what they gave when it begins."""

from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Demand, Grant, Prompt
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.conformance import SMALL_GEOMETRY, Trial, drive
from harness.conformance.checks import told


def virtual(**knobs):
    return Virtual(SMALL_GEOMETRY, page_size="64KiB", **knobs)


def row(*rows):
    return np.array(rows, dtype=np.int64)


def admit(trial, at, tokens=20):
    return trial.admit(row(at), Prompt(tokens), Demand(tokens, 30))


def called(trial):
    return [method for method, _, _ in trial.history]


def test_what_is_promised_has_no_memory_until_the_step_begins():
    trial = Trial(virtual)
    with trial.step():
        assert admit(trial, 3)
        assert admit(trial, 4)
        assert (trial.allocator.addresses(3) < 0).all()
        assert not trial.memory.mapped
        assert called(trial) == ["admit", "admit"]
    assert called(trial)[2:] == ["begin_step"]
    slots = trial.allocator.addresses(3)
    assert (trial.memory.values[slots] == trial.tokens[3]).all()
    assert trial.counts["bursts"] == 1
    assert trial.counts["before_maps"] == 2 * 3  # 20 tokens, 8 a page-group


def test_a_refusal_leaves_no_trace_where_places_are_only_promised():
    trial = Trial(virtual)
    with trial.step():
        for at in range(12):
            if not admit(trial, at, tokens=90):
                break
        assert trial.counts["refusals"] == 1
        assert trial.allocator.addresses(0)[0] < 0
        before = trial.snapshot()
        assert not admit(trial, at, tokens=90)
        assert trial.snapshot() == before
    trial.release_all()


@pytest.mark.parametrize("make", [virtual, lambda: Paged(SMALL_GEOMETRY, block_size=8)])
def test_a_row_that_leaves_may_be_let_again_in_the_same_step(make):
    trial = Trial(make)
    admit(trial, 0)
    admit(trial, 1)
    with trial.step():
        trial.release(row(0))
        trial.preempt(row(1))
        assert admit(trial, 0, tokens=50)
    assert trial.live.tolist() == [0]
    assert len(trial.tokens[0]) == 50


def test_a_row_gets_slots_once_in_a_step():
    trial = Trial(virtual)
    admit(trial, 0)
    with trial.step():
        assert trial.grow(row(0))
        with pytest.raises(ValueError, match=r"rows \[0\] have got slots in this step already"):
            trial.release(row(0))


def test_a_step_has_no_steps_within():
    trial = Trial(virtual)
    with trial.step(), pytest.raises(ValueError, match="a step is being planned already"):
        trial.step().__enter__()


def test_a_call_alone_is_a_step_and_a_refused_one_is_none():
    trial = Trial(lambda: Paged(replace(SMALL_GEOMETRY, capacity_tokens=24), block_size=8))
    assert admit(trial, 0)
    assert not admit(trial, 1, tokens=9)
    assert called(trial) == ["admit", "begin_step", "admit"]


def test_the_schedule_presses_within_a_step():
    counts = drive(virtual, 0, 200).counts
    assert counts["bursts"] > 10
    for what in ("before_maps", "before_unmaps", "beside_maps", "beside_unmaps"):
        assert counts[what], what


def test_a_grant_is_told_even_where_all_of_it_is_number_zero():
    assert told(Grant()) == "nothing"
    assert told(Grant(maps=row(0, 0, 0)[None])) == "maps [[0, 0, 0]]"
