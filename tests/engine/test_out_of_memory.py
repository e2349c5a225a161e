"""A request that can never be served is an error that names it and the pool, never a loop."""

import re
from dataclasses import replace

import pytest

from allocators.base import Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.schedulers.base import Unservable
from tests.engine.cases import MODES, POOL, Metronome, allocators, make, run, table

SMALL = replace(POOL, capacity_tokens=64, max_len=200)
FAMILIES = allocators(SMALL)


class Bounded(Metronome):
    """Gives up after so many steps: an engine that loops for ever fails."""

    skips = False

    def __init__(self, steps=2000):
        self._left = steps

    def step(self, plan, lengths):
        self._left -= 1
        assert self._left, "the engine goes round in circles"
        return 1.0


def message_of(allocator, requests, mode, **options):
    with pytest.raises(Unservable) as caught:
        run(allocator, requests, MODES[mode], Bounded(), **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("policy", ["continuous", "static", "orca"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_longer_than_the_pool_is_named_with_the_capacity(name, mode, policy):
    requests = table([3, 90, 3], [1, 5, 2])
    if name == "contiguous_max":  # a whole context is reserved, whatever the request
        requests = table([90], [5])
    requests.ids = [f"req-{i}" for i in range(len(requests))]
    text = message_of(FAMILIES[name](), requests, mode, policy=policy)
    assert f"request 'req-{len(requests) // 2}' (prompt 90, output 5" in text
    pages = FAMILIES[name]().geometry
    assert re.search(rf"pool .*\b({64 // pages.page_tokens}|64)\b", text), text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n in FAMILIES if "pow2" not in n and "oracle" not in n])
def test_one_that_outgrows_the_pool_alone_is_not_swapped_for_ever(name, mode):
    hosted = allocators(replace(SMALL, host_tokens=640))
    text = message_of(hosted[name](), table([2, 4], [3, 150]), mode, preemption="swap")
    assert f"request '{0 if name == 'contiguous_max' else 1}' (prompt" in text


@pytest.mark.parametrize("policy", ["continuous", "static", "orca"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [n for n in FAMILIES if "pow2" not in n and "oracle" not in n])
def test_one_that_fits_at_first_and_can_never_end_is_named_too(name, mode, policy):
    # The first ends; the second outgrows the pool, alone or not.
    requests = table([2, 4, 4], [3, 150, 150])
    text = message_of(FAMILIES[name](), requests, mode, policy=policy)
    first = 0 if name == "contiguous_max" else 1
    assert f"request '{first}' (prompt" in text
    assert "pool" in text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slots", [1, 15, 16, 17])
def test_the_last_slot_that_fits_ends_the_run_and_one_more_does_not(mode, slots):
    """The last output token takes no slot, so prompt + output - 1 slots are enough, to the slot."""
    sequences = MODES[mode].sequences
    pool = replace(POOL, capacity_tokens=slots * sequences, max_len=99)
    log = run(Paged(pool, block_size=1), table([1], [slots]), MODES[mode], Bounded())
    assert log.timeline["token_bytes"][-1] <= pool.capacity_bytes
    if mode == "greedy":
        assert log.timeline["token_bytes"][-1] == pool.capacity_bytes
        assert log.timeline["preemptions"].sum() == 0
        message_of(Paged(pool, block_size=1), table([1], [slots + 1]), mode)
        exact = Contiguous(pool, reservation="oracle", placement="first_fit")
        assert run(exact, table([1], [slots]), MODES[mode]).steps == slots
        exact = Contiguous(pool, reservation="oracle", placement="first_fit")
        message_of(exact, table([1], [slots + 1]), mode)


def test_a_pool_that_just_holds_two_lives_serves_many_in_turn():
    for make_allocator in (
        lambda pool: Paged(pool, block_size=4),
        lambda pool: Contiguous(pool, reservation="grow"),
        lambda pool: Virtual(pool, page_size="64KiB", rules="paper", reclaim_free=1.0),
    ):
        pool = replace(POOL, capacity_tokens=128, max_len=64)
        log = run(make_allocator(pool), table([10] * 12, [50] * 12), MODES["greedy"], Bounded(9000))
        assert log.timeline["preemptions"].sum()
        assert (log.requests["status"] == "finished").all()


def test_a_request_of_more_sequences_than_may_run_is_refused_at_once():
    for pool, limit in ((POOL, 3), (replace(POOL, max_seqs=3), 256)):
        with pytest.raises(Unsupported, match="4 sequences never fits in max_num_seqs=3"):
            make(Paged(pool), table([1], [2]), MODES["beam"], max_num_seqs=limit)


def test_an_allocator_with_fewer_rows_than_the_limit_uses_those_it_has():
    pool = replace(POOL, max_seqs=5)
    log = run(Paged(pool), table([1] * 9, [3] * 9), MODES["greedy"], max_num_seqs=256)
    assert log.timeline["batch"].max() == 5
