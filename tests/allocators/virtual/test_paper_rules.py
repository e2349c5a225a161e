"""The rules of vAttention's paper (rules=paper): sections 6.1.1 and 6.1.2 of arXiv 2405.04437v3."""

import pytest

from tests.allocators.virtual.small_pool import admit, end, grow, idle, places, pool


def paper(**knobs):
    quiet = {"rules": "paper", "background": True, "eager": False, "reclaim_free": 0.0}
    return pool(**quiet | knobs)


def test_the_thread_maps_for_the_next_token_alone():
    allocator = paper()
    for row, length in enumerate((7, 8, 8, 8)):
        admit(allocator, row, length)
    assert places(allocator.begin_step().beside.maps) == [(1, 1), (2, 1), (3, 1)]


def test_the_thread_keeps_one_idle_range_ready():
    allocator = paper(eager=True)
    admit(allocator, 0, 4)
    before, beside = allocator.begin_step()
    assert places(before.maps) == [(0, 0)]
    assert places(beside.maps) == [(1, 0)]
    assert allocator.begin_step().beside.is_empty
    admit(allocator, 1, 4)
    before, beside = allocator.begin_step()
    assert before.is_empty
    assert places(beside.maps) == [(2, 0)]


def test_a_range_kept_ready_serves_no_admission_of_the_step_that_made_it_ready():
    allocator = paper(eager=True)
    admit(allocator, 0, 4)
    admit(allocator, 1, 4)
    before, beside = allocator.begin_step()
    assert places(before.maps) == [(0, 0), (1, 0)]
    assert places(beside.maps) == [(2, 0)]


def test_no_range_is_kept_ready_with_the_last_page_group_gone():
    allocator = paper(eager=True, page_groups=8)
    admit(allocator, 0, 60)
    assert allocator.begin_step().beside.is_empty
    assert allocator.balance() == (8, 0, 0)


@pytest.mark.parametrize(("share", "kept_free"), [(0.0, 0), (0.1, 2), (0.2, 4)])
def test_the_thread_keeps_a_share_of_the_page_groups_free(share, kept_free):
    allocator = paper(reclaim_free=share)
    for row, page_groups in enumerate((6, 7, 3, 2, 2)):
        admit(allocator, row, 8 * page_groups - 1)
    allocator.begin_step()
    assert allocator.balance() == (20, 0, 0)
    assert end(allocator, 2, 3, 4).is_empty
    before, beside = allocator.begin_step()
    assert before.is_empty
    # Whole ranges, the last one first, of two page-groups here.
    ranges = [4, 4, 3, 3][:kept_free]
    assert [vrange for vrange, _ in places(beside.unmaps)] == ranges
    assert allocator.balance() == (13, 7 - kept_free, kept_free)


def test_ten_percent_and_a_ready_range_are_the_defaults():
    allocator = pool(rules="paper", background=True)
    assert (allocator.thread.keep_free, allocator.thread.eager) == (2, True)


def test_live_map_ahead_is_not_reclaimed_to_keep_a_share_free():
    allocator = paper(page_groups=10, reclaim_free=0.5)
    admit(allocator, 0, 31)
    admit(allocator, 1, 31)
    allocator.begin_step()
    allocator.truncate(0, 20)
    assert allocator.begin_step().beside.is_empty
    assert allocator.balance() == (8, 0, 2)


def test_without_deferral_idle_ranges_give_all_back_beside_the_next_step():
    allocator = paper(deferred=False)
    idle(allocator, 3, 2)
    assert allocator.balance()[1] > 0
    before, beside = allocator.begin_step()
    assert before.is_empty
    assert {vrange for vrange, _ in places(beside.unmaps)} == {0, 1}
    assert allocator.balance() == (0, 0, 20)


def test_without_a_thread_the_step_waits_for_what_is_kept_free_and_ready():
    allocator = paper(eager=True, reclaim_free=0.2, background=False)
    for row, page_groups in enumerate((8, 8, 3)):
        admit(allocator, row, 8 * page_groups)
    before, beside = allocator.begin_step()
    assert places(before.maps)[-1] == (3, 0)  # the ready one; none is mapped ahead
    assert beside.is_empty
    assert allocator.balance() == (19, 1, 0)
    end(allocator, 2)
    before, beside = allocator.begin_step()
    assert places(before.unmaps) == [(3, 0), (2, 2), (2, 1), (2, 0)]
    assert places(before.maps) == [(2, 0)]
    assert beside.is_empty


def test_it_admits_and_grows_without_the_scheduler_rules_of_the_code():
    allocator = paper(page_groups=200, max_len=1600)
    admit(allocator, 0, 100 * 8 - 1)
    assert admit(allocator, 1, 100 * 8 - 1) is not None
    assert allocator.available == 0
    assert grow(allocator, 0) is not None


@pytest.mark.parametrize(("kept", "need", "taken"), [((4, 3, 2), 2, 2), ((1, 3, 4), 3, 0)])
def test_a_range_is_chosen_as_by_the_code(kept, need, taken):
    allocator = paper()
    idle(allocator, *kept)
    admit(allocator, 5, 8 * need)
    assert int(allocator.range_of[5]) == taken
