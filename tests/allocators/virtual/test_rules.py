"""vAttention's rules one by one, as docs/virtual.md states them (rules=vattention)."""

import numpy as np
import pytest

from tests.allocators.virtual.small_pool import admit, end, grow, idle, places, pool


# -- promised while a step is planned, mapped when it begins -------------------------------------
def test_what_is_admitted_is_promised_and_mapped_when_the_step_begins():
    allocator = pool()
    assert admit(allocator, 0, 24).is_empty
    assert (allocator.balance(), allocator.available) == ((0, 0, 20), 17)
    before, beside = allocator.begin_step()
    assert before.maps.tolist() == [[0, 0, 0], [0, 1, 1], [0, 2, 2]]
    assert beside.is_empty
    assert (allocator.balance(), allocator.available) == ((3, 0, 17), 17)


def test_what_is_grown_is_promised_and_mapped_when_the_step_begins():
    allocator = pool()
    admit(allocator, 0, 24)
    allocator.begin_step()
    assert grow(allocator, 0).is_empty
    assert (allocator.balance(), allocator.available) == ((3, 0, 17), 16)
    assert allocator.begin_step().before.maps.tolist() == [[0, 3, 3]]


def test_an_end_unmaps_nothing():
    allocator = pool()
    admit(allocator, 0, 24)
    allocator.begin_step()
    assert end(allocator, 0).is_empty
    assert allocator.balance() == (0, 3, 17)
    assert allocator.begin_step().before.is_empty


# -- which range is taken ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kept", "need", "taken"),
    [
        ((4, 3, 2), 2, 2),  # the smallest that suffices
        ((4, 3, 2), 3, 1),
        ((4, 2, 3), 1, 1),
        ((3, 3, 3), 2, 0),  # the first of equals
        ((4, 2, 3), 4, 0),
        ((1, 3, 4), 3, 0),  # the first does not suffice, and is kept though others would do
        ((1, 2, 1), 2, 0),
    ],
)
def test_the_first_idle_range_is_taken_unless_a_smaller_one_suffices(kept, need, taken):
    allocator = pool()
    idle(allocator, *kept)
    admit(allocator, 5, 8 * need)
    assert int(allocator.range_of[5]) == taken
    before = allocator.begin_step().before
    assert places(before.maps) == [(taken, column) for column in range(kept[taken], need)]
    assert not len(before.unmaps)


def test_excess_stays_mapped_and_is_available():
    allocator = pool()
    idle(allocator, 4)
    admit(allocator, 0, 8)
    assert allocator.begin_step().before.is_empty
    assert (allocator.balance(), allocator.available) == ((4, 0, 16), 19)


# -- reclaim -------------------------------------------------------------------------------------
def beside_idle_and_ahead(**knobs):
    """Range 0 needs the two it has, range 1 is idle with two, range 2 has one ahead; 2 are free."""
    allocator = pool(page_groups=8, **knobs)
    for row in (0, 1, 2):
        admit(allocator, row, 16)
    allocator.begin_step()
    end(allocator, 1)
    allocator.truncate(2, 8)
    allocator.begin_step()
    assert (allocator.pages.count[:3].tolist(), allocator.available) == ([2, 2, 2], 5)
    return allocator


def test_reclaim_begins_at_the_last_range_and_takes_what_live_ones_have_ahead():
    allocator = beside_idle_and_ahead()
    grow(allocator, 0, n=3 * 8)
    before = allocator.begin_step().before
    assert places(before.unmaps) == [(2, 1)]
    assert places(before.maps) == [(0, 2), (0, 3), (0, 4)]


def test_reclaim_takes_the_whole_excess_of_a_range():
    allocator = beside_idle_and_ahead()
    grow(allocator, 0, n=4 * 8)
    before = allocator.begin_step().before
    assert places(before.unmaps) == [(2, 1), (1, 1), (1, 0)]
    assert len(before.maps) == 4
    assert allocator.balance() == (7, 0, 1)


def test_free_page_groups_are_taken_before_any_is_reclaimed():
    allocator = beside_idle_and_ahead()
    grow(allocator, 0, n=2 * 8)
    assert not len(allocator.begin_step().before.unmaps)
    assert allocator.balance() == (6, 2, 0)


def test_without_a_thread_a_range_may_lose_what_it_is_about_to_need():
    """step_sync tells range by range how long it is, and range 0 comes first."""
    allocator = beside_idle_and_ahead()
    grow(allocator, 0, n=3 * 8)
    grow(allocator, 2)
    before = allocator.begin_step().before
    assert places(before.unmaps) == [(2, 1), (1, 1), (1, 0)]
    assert (2, 1) in places(before.maps)


# -- deferral off --------------------------------------------------------------------------------
def test_without_deferral_the_thread_unmaps_one_page_group_a_step_that_is_not_short():
    allocator = pool(deferred=False, background=True)
    for row, tokens in enumerate((6, 16, 16)):
        admit(allocator, row, tokens)
    while not allocator.begin_step().beside.is_empty:
        pass  # it maps ahead
    held = int(allocator.pages.count[2])
    assert end(allocator, 1, 2).is_empty
    for column in range(held - 1, 0, -1):
        before, beside = allocator.begin_step()
        assert before.is_empty
        assert (places(beside.unmaps), len(beside.maps)) == ([(2, column)], 0)
    grow(allocator, 0, n=10)  # to the end of what it has
    beside = allocator.begin_step().beside
    assert not len(beside.unmaps)
    assert len(beside.maps)
    assert places(allocator.begin_step().beside.unmaps) == [(2, 0)]
    # Range 1 is the first idle one, which an admission would take.
    assert allocator.begin_step().beside.is_empty
    assert allocator.pages.count[1] > 0


def test_without_a_thread_idle_ranges_give_all_back_in_the_next_step():
    allocator = pool(deferred=False)
    idle(allocator, 3, 2)
    assert allocator.balance() == (0, 5, 15)
    before, beside = allocator.begin_step()
    assert places(before.unmaps) == [(0, 2), (0, 1), (0, 0), (1, 1), (1, 0)]
    assert beside.is_empty
    assert allocator.balance() == (0, 0, 20)


def test_without_a_thread_a_range_that_is_let_again_before_the_step_keeps_its_pages():
    allocator = pool(deferred=False)
    idle(allocator, 3, 2)
    admit(allocator, 0, 16)  # takes range 1, the smaller one that suffices
    before = allocator.begin_step().before
    assert {vrange for vrange, _ in places(before.unmaps)} == {0}
    assert not len(before.maps)


# -- admission and growth ------------------------------------------------------------------------
def test_one_percent_stays_free_beside_others_only():
    allocator = pool(page_groups=200, max_len=1600, admission="vattention")
    assert admit(allocator, 0, 100 * 8) is not None
    assert admit(allocator, 1, 99 * 8) is None
    assert admit(allocator, 1, 98 * 8) is not None
    alone = pool(page_groups=200, max_len=1600, admission="vattention")
    assert admit(alone, 0, 200 * 8) is not None


def test_growth_beside_others_wants_one_page_group_free_that_it_does_not_need():
    allocator = pool(page_groups=6, admission="vattention")
    for row in (0, 1):
        admit(allocator, row, 20)
    allocator.begin_step()
    assert allocator.available == 0
    assert grow(allocator, 0) is None
    assert allocator.headroom(np.array([0])) == 0
    end(allocator, 1)
    assert grow(allocator, 0) is not None


def test_growth_alone_needs_no_more_than_it_takes():
    allocator = pool(page_groups=3, admission="vattention")
    admit(allocator, 0, 20)
    allocator.begin_step()
    assert allocator.headroom(np.array([0])) == 4
    assert grow(allocator, 0) is not None
    assert allocator.available == 0


def two_at_a_page_groups_end():
    """Seven page-groups; row 0 fills its third by its next token, row 1 does not."""
    allocator = pool(page_groups=7, admission="vattention")
    admit(allocator, 0, 23)
    admit(allocator, 1, 20)
    allocator.begin_step()
    assert allocator.available == 1
    return allocator


def test_growth_promises_what_the_token_after_it_will_take():
    allocator = two_at_a_page_groups_end()
    assert grow(allocator, 0, 1) is None  # what is free is promised to row 0
    assert grow(allocator, 1, 0) is not None  # asked in this order nobody is promised any yet
    allocator = two_at_a_page_groups_end()
    assert grow(allocator, 0) is not None
    assert grow(allocator, 1) is None
    allocator.begin_step()  # the promise ends with the step
    assert grow(allocator, 1) is not None


def test_a_preempted_sequence_takes_its_promise_along():
    allocator = pool(page_groups=7, admission="vattention")
    admit(allocator, 0, 23)
    admit(allocator, 1, 24)
    allocator.begin_step()
    assert grow(allocator, 0) is not None
    assert grow(allocator, 1) is None
    allocator.preempt(np.array([1]))
    assert allocator.available == 4
    assert admit(allocator, 2, 4 * 8) is not None


# -- swapping ------------------------------------------------------------------------------------
def test_what_is_promised_and_not_mapped_yet_is_not_saved():
    """Regression: it was saved from a page-group of number -1."""
    allocator = pool(host_tokens=160)
    admit(allocator, 0, 24)
    assert allocator.suspend(np.array([0]), ticket=7) is None
    allocator.begin_step()
    assert len(allocator.suspend(np.array([0]), ticket=7).swaps_out) > 0


def test_what_comes_back_beside_others_can_grow_although_they_have_grown():
    """Regression: what growth had promised for its next token was given to the one that came."""
    allocator = pool(page_groups=7, admission="vattention", host_tokens=160)
    admit(allocator, 0, 23)
    admit(allocator, 1, 20)
    allocator.begin_step()
    assert allocator.suspend(np.array([1]), ticket=7) is not None
    assert grow(allocator, 0) is not None
    assert allocator.available == 4  # three to come back, one for the next token of row 0
    assert allocator.resume(np.array([1]), ticket=7) is None
    allocator.begin_step()
    assert allocator.resume(np.array([1]), ticket=7) is not None
    assert grow(allocator, 1) is not None


# -- the thread ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("length", "ahead"), [(7, []), (8, [(0, 1)]), (16, [(0, 1)])])
def test_the_thread_looks_nine_tokens_ahead(length, ahead):
    allocator = pool(group_tokens=16, background=True)
    admit(allocator, 0, length)
    before, beside = allocator.begin_step()
    assert places(before.maps) == [(0, 0)]
    assert places(beside.maps) == ahead


def test_the_thread_stops_at_two_page_groups():
    allocator = pool(group_tokens=16, background=True)
    for row in range(4):
        admit(allocator, row, 8)
    assert places(allocator.begin_step().beside.maps) == [(0, 1), (1, 1)]
    assert places(allocator.begin_step().beside.maps) == [(2, 1), (3, 1)]
    assert allocator.begin_step().beside.is_empty


def test_the_next_token_is_served_however_many_that_takes():
    allocator = pool(group_tokens=16, background=True)
    for row in range(4):
        admit(allocator, row, 16)
    assert places(allocator.begin_step().beside.maps) == [(row, 1) for row in range(4)]


def test_range_0_is_served_behind_the_limit_too():
    allocator = pool(group_tokens=16, background=True)
    for row, length in enumerate((15, 16, 16, 15)):
        admit(allocator, row, length)
    assert places(allocator.begin_step().beside.maps) == [(1, 1), (2, 1), (0, 1)]


def test_what_was_mapped_ahead_is_there_when_it_is_grown_into():
    allocator = pool(group_tokens=16, background=True)
    admit(allocator, 0, 16)
    allocator.begin_step()
    assert grow(allocator, 0).is_empty
    assert allocator.begin_step().before.is_empty


def test_the_thread_reclaims_when_the_pool_is_empty():
    allocator = pool(page_groups=4, background=True)
    admit(allocator, 0, 8)
    admit(allocator, 1, 24)
    assert allocator.begin_step().beside.is_empty  # nothing is left, nothing is excess
    end(allocator, 1)
    before, beside = allocator.begin_step()
    assert before.is_empty
    assert places(beside.unmaps) == [(1, 2), (1, 1), (1, 0)]
    assert places(beside.maps) == [(0, 1), (0, 2)]


def test_a_range_that_loses_what_it_had_ahead_wants_it_again_in_its_turn():
    allocator = pool(page_groups=5, group_tokens=16, background=True)
    admit(allocator, 0, 7)
    admit(allocator, 1, 16)
    assert places(allocator.begin_step().beside.maps) == [(1, 1)]
    assert grow(allocator, 0, n=9) is not None
    admit(allocator, 2, 16)
    # Ranges 0 and 2 are short and one page-group is free: range 1 has the only excess.
    before, beside = allocator.begin_step()
    assert places(before.maps) == [(2, 0)]
    assert places(beside.unmaps) == [(1, 1)]
    assert places(beside.maps) == [(0, 1), (1, 1)]
