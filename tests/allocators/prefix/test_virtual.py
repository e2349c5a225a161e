"""virtual + hash maps what a slow model of its rules maps, and a hit holds exactly those tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt, Unsupported
from allocators.contiguous import Contiguous
from allocators.virtual import Virtual
from harness.conformance import SMALL_GEOMETRY
from harness.conformance.schedule import drive
from tests.allocators.prefix.range_pair import Pair, is_paper, pool
from tests.allocators.prefix.streams import (
    assert_no_index_without_tokens,
    grown_one_by_one,
    serve_some,
)

OPTIONS = {
    "code": {"admission": "vattention"},
    "code, all given back": {"admission": "vattention", "deferred": False},
    "code, no thread": {"admission": "vattention", "background": False},
    "code, no thread, all given back": {"background": False, "deferred": False},  # let in by need
    "paper": {"rules": "paper"},
    "paper, plain": {"rules": "paper", "background": False, "eager": False, "reclaim_free": 0.0},
    "paper, no thread": {"rules": "paper", "background": False, "reclaim_free": 0.2},
    "paper, all given back": {"rules": "paper", "deferred": False},
}


def gives_back(options):
    return not options.get("deferred", True)


def at_once(options):
    return is_paper(options) or not options.get("background", True)


#: what has to happen under some options, however tight the pools are
EVENTS = {
    "mapped ahead": lambda o: o.get("background", True),
    "mapped further ahead": lambda o: not is_paper(o) and o.get("background", True),
    "reclaimed from live ranges": lambda o: o.get("background", True),
    "nothing left to map ahead": lambda o: not is_paper(o) and o.get("background", True),
    "given back one by one": lambda o: gives_back(o) and not at_once(o),
    "given back at once": lambda o: gives_back(o) and at_once(o),
    "mapped eagerly": lambda o: is_paper(o) and o.get("eager", True),
    "refused for the watermark": lambda o: "admission" in o,
    "refused for what others will take": lambda o: "admission" in o,
    "refused the last free page-group": lambda o: "admission" in o,
    **dict.fromkeys(
        ("hits on live page-groups", "hits on idle page-groups", "evictions", "refusals",
         "refusals to grow", "taken with excess"), lambda o: True),
    **dict.fromkeys(
        ("refused for its own hits", "reclaimed", "unmapped from one of several",
         "taken with its prefix in place", "prefixes overwritten", "duplicates"),
        lambda o: o.get("deferred", True)),
}  # fmt: skip
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@every_option
def test_every_step_agrees_with_the_slow_model_under_tight_pools(options):
    saw: Counter[str] = Counter()
    for seed in range(14):
        rng = np.random.default_rng(seed)

        def draw(low: int, high: int, rng=rng) -> int:
            return int(rng.integers(low, high, endpoint=True))

        pair = Pair(draw(6, 20), 2 ** draw(0, 2), draw(0, 2), options)
        calls = [pair.admit] * 2 + [pair.grow] * 3 + [pair.release] + [pair.begin_step] * 2
        for _ in range(120):
            calls[draw(0, 7)](draw)
            pair.compare()
        saw += pair.slow.saw
    for what, applies in EVENTS.items():
        if applies(options):
            assert saw[what] > 0, f"the pools were never so tight that there were {what}: {saw}"


@every_option
def test_hits_are_honest_with_forks_beams_and_truncation(options):
    """Each token has a value of its own, and every sequence reads back exactly its own."""
    counts: Counter[str] = Counter()

    def make():
        return Virtual(SMALL_GEOMETRY, page_size="64KiB", prefix_index="hash", **options)

    for seed in range(20, 22):
        trial = drive(make, seed, 150)
        counts += trial.counts
        counts["evictions"] += trial.allocator.evictions
    for what in ("hits", "refusals", "copies", "unmaps", "evictions"):
        assert counts[what] > 0, f"no {what} in the whole run: {counts}"


def state(real: Virtual) -> dict:
    """Everything that later decisions can depend on."""
    index = real.index
    return {
        "table": real.pages.table.tolist(),
        "free": real.pages.free.pages().tolist(),
        "idle": list(real.ranges._idle),
        "length": real.ranges.length.tolist(),
        "promised": (real._grown, real._next),
        "keyed": index._pool.keyed.tolist(),
        "named": sorted(index._page_of.items()),
        "more": sorted(index._more.items()),
        "evictions": real.evictions,
        "balance": real.balance(),
    }


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("knobs", [{}, {"admission": "vattention"}, {"rules": "paper"}])
def test_a_quiet_window_ends_and_accounts_as_single_steps_do(knobs, background):
    windows = keying = 0
    for seed in range(60):
        real = pool(16, 8, background=background, **knobs)
        rows = serve_some(real, np.random.default_rng(seed))
        while not all(grant.is_empty for grant in real.begin_step()):
            pass
        steps = real.quiet_steps(rows, 9)
        if steps < 2:
            continue
        windows += 1
        finals = real.length[rows] + 12
        single = grown_one_by_one(real, rows, finals, steps, state)
        keying += single.prefix_stats.keyed_blocks > real.prefix_stats.keyed_blocks
    assert windows
    # A window ends before a page-group is full if one has to be mapped ahead, or promised.
    assert keying or background or "admission" in knobs, "no window filled a page-group"


# -- the rules, one by one ---------------------------------------------------------------------
def admit(real, row: int, ids, tokens: int | None = None):
    tokens = tokens or len(ids)
    return real.admit(np.array([row]), Prompt(tokens, np.array(ids)), Demand(tokens, 20))


def test_only_whole_page_groups_are_shared_and_the_last_token_never():
    real = pool(20, 8)
    ids = np.arange(24)
    admit(real, 0, ids)
    assert real.lookup(Prompt(24, ids)) == 16
    assert real.lookup(Prompt(23, ids[:23])) == 16
    assert real.lookup(Prompt(25, np.arange(25))) == 24
    assert real.lookup(Prompt(7, ids[:7])) == 0


def test_a_live_prefix_is_mapped_a_second_time_instead_of_computed():
    real = pool(20, 4)
    admit(real, 0, np.arange(10))
    grant = admit(real, 1, np.arange(10))
    assert grant.cached_tokens == 8
    assert real.pages.table[:2, :2].tolist() == [real.pages.table[0, :2].tolist()] * 2
    assert len(grant.maps) == 3  # two of the prefix, one new
    assert real.balance() == (4, 0, 16)


def test_an_idle_range_whose_prefix_is_hit_is_taken_as_it_stands():
    real = pool(20, 4)
    admit(real, 0, np.arange(10))
    real.release(np.array([0]))
    assert real.balance() == (0, 3, 17)
    grant = admit(real, 1, [*range(8), 70, 71])
    assert grant.cached_tokens == 8
    assert not len(grant.maps)
    assert not len(grant.unmaps)


def test_an_idle_range_with_more_prefix_than_is_hit_keeps_it():
    real = pool(20, 4)
    admit(real, 0, np.arange(16))
    real.release(np.array([0]))
    grant = admit(real, 1, [*range(8), 70, 71])
    assert grant.cached_tokens == 8
    assert len(grant.maps) == 3
    # Two are shared with the idle range and active, the other two are cached.
    assert real.balance() == (3, 2, 15)
    assert real.lookup(Prompt(17, np.arange(17))) == 16
    real.release(np.array([1]))
    assert real.balance() == (0, 5, 15)


def test_to_reclaim_unmaps_from_idle_ranges_only():
    real = pool(6, 4)
    admit(real, 0, np.arange(16))
    real.release(np.array([0]))
    admit(real, 1, [*range(8), 70])  # holds 3, the idle range 2 more
    grant = real.grow(np.array([1]), 10)  # wants 2 more: 1 is free
    assert len(grant.unmaps) == 1
    assert real.balance() == (5, 1, 0)
    assert real.lookup(Prompt(17, np.arange(17))) == 12
    assert (
        real.addresses(1)[:8].tolist()
        == (real.pages.table[0, :2, None] * 4 + range(4)).ravel().tolist()
    )


def test_what_live_ranges_have_ahead_is_taken_last_and_idle_ones_keep_what_is_live_elsewhere():
    """Regression: an idle range's share of a live prefix was unmapped, which frees nothing."""
    real = pool(7, 4, background=False)
    admit(real, 0, np.arange(100, 108))
    admit(real, 1, np.arange(16))
    real.release(np.array([1]))
    admit(real, 2, np.arange(9))  # two page-groups of the idle range 1 and one more
    real.truncate(0, 4)
    assert (real.balance(), real.available) == ((5, 2, 0), 3)
    grant = real.grow(np.array([2]), 15)
    assert grant.unmaps[:, :2].tolist() == [[1, 3], [1, 2], [0, 1]]
    assert real.pages.count[1] == 2
    assert real.lookup(Prompt(16, np.arange(16))) == 8


def test_a_hit_does_not_count_its_own_page_groups_as_available():
    real = pool(5, 4)
    admit(real, 0, np.arange(12))
    real.release(np.array([0]))
    admit(real, 1, np.arange(100, 109))
    # 2 free or cached remain beside a hit of 0 page-groups, and both are its own prefix's.
    assert real.balance() == (3, 2, 0)
    assert admit(real, 2, [*range(8), 70]) is None
    assert real.balance() == (3, 2, 0)


@pytest.mark.parametrize(
    "knobs", [{"rules": "vattention"}, {"rules": "paper", "eager": False}], ids=["code", "paper"]
)
@pytest.mark.parametrize("background", [True, False])
def test_without_deferral_an_ended_prefix_is_hit_until_its_range_has_given_it_back(
    knobs, background
):
    real = pool(20, 4, deferred=False, background=background, **knobs)
    admit(real, 0, np.arange(10))
    admit(real, 1, np.arange(10))
    real.begin_step()
    real.release(np.array([0, 1]))
    assert real.lookup(Prompt(10, np.arange(10))) == 8
    for _ in range(6):  # the code's thread spares the first idle range
        real.begin_step()
    left = knobs["rules"] == "vattention" and background
    assert real.lookup(Prompt(10, np.arange(10))) == 8 * left
    assert real.evictions == 2 * (not left)
    assert real.balance()[2] == 20 - real.pages.count[0]
    assert (real.pages.count[0] > 0) == left


def test_a_group_hits_and_shares_the_rest():
    real = pool(20, 4)
    admit(real, 0, np.arange(9))
    grant = real.admit(np.array([1, 2]), Prompt(10, np.arange(10)), Demand(10, 5))
    assert grant.cached_tokens == 8
    assert real.balance() == (4, 0, 16)
    assert real.grow(np.array([1, 2])).copies[:, 2].tolist() == [2]


def test_an_ended_sequence_does_not_keep_what_its_group_still_writes():
    real = pool(20, 4)
    real.admit(np.array([0, 1]), Prompt(6, np.arange(6)), Demand(6, 5))
    real.release(np.array([0]))
    assert real.pages.count.tolist()[:2] == [1, 2]
    assert not len(real.grow(np.array([1])).copies)


def test_what_is_generated_after_a_fork_is_never_indexed():
    real = pool(20, 4)
    admit(real, 0, np.arange(30), tokens=5)
    real.fork(0, np.array([1]), Demand(5, 20))
    real.grow(np.array([0, 1]), 8)
    assert real.lookup(Prompt(30, np.arange(30))) == 4


def hit_beside_an_idle_range() -> Virtual:
    """Sequence 1 of 13 tokens holds 3 of the 4 page-groups that an idle range keeps."""
    real = pool(20, 4)
    admit(real, 0, np.arange(16))
    real.release(np.array([0]))
    assert admit(real, 1, np.arange(13)).cached_tokens == 12
    assert real.balance() == (4, 1, 15)
    return real


def test_a_roll_back_into_a_shared_page_group_copies_it_and_leaves_it_cached():
    real = hit_beside_an_idle_range()
    real.truncate(1, 6)
    assert real.balance() == (2, 2, 16)
    assert real.lookup(Prompt(16, np.arange(16))) == 4  # the second one has lost its key
    assert real.grow(np.array([1])).copies[:, 2].tolist() == [3]
    assert real.balance() == (2, 3, 15)
    real.check()


def test_a_beam_step_away_from_a_prefix_leaves_it_cached():
    real = hit_beside_an_idle_range()
    real.fork(1, np.array([2]), Demand(13, 5))
    real.truncate(2, 8)
    real.grow(np.array([2]), 8)
    assert real.balance() == (7, 1, 12)
    real.reassign(np.array([1, 2]), np.array([2, 2]))
    assert real.balance() == (4, 3, 13)
    real.check()


def test_no_tokens_known_means_no_index_at_all():
    assert_no_index_without_tokens(pool(6, 4, "none"), pool(6, 4))


def test_coarse_pages_share_less_of_a_prefix():
    """OPT-13B: a 2 MiB page of one tensor holds 204 tokens, one of 64 KiB holds 6."""
    shape = Geometry(
        capacity_tokens=16_000, max_seqs=4, max_len=2048, layers=40, kv_heads=40, head_dim=128
    )
    found = {}
    for size in ("64KiB", "256KiB", "2MiB"):
        for prefix in (80, 341):
            real = Virtual(shape, page_size=size, prefix_index="hash")
            admit(real, 0, np.arange(prefix + 50))
            other = np.append(np.arange(prefix), np.arange(9000, 9050))
            found[size, prefix] = admit(real, 1, other).cached_tokens
    assert found == {
        ("64KiB", 80): 78, ("64KiB", 341): 336,
        ("256KiB", 80): 75, ("256KiB", 341): 325,
        ("2MiB", 80): 0, ("2MiB", 341): 204,
    }  # fmt: skip


def test_what_cannot_share_says_so():
    with pytest.raises(Unsupported, match="sharing=copy"):
        Virtual(SMALL_GEOMETRY, page_size="64KiB", sharing="copy", prefix_index="hash")
    with pytest.raises(ValueError, match="none, hash, got 'radix'"):
        Virtual(SMALL_GEOMETRY, page_size="64KiB", prefix_index="radix")
    for index in ("hash", "radix"):
        with pytest.raises(Unsupported, match="an extent of its own"):
            Contiguous(replace(SMALL_GEOMETRY), prefix_index=index)
