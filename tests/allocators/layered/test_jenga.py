"""Jenga: two levels of pages, in stories under pressure, and beside `Paged`."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from allocators.base import Geometry, NeverFits, Unsupported
from allocators.layered.jenga import Jenga
from allocators.layered.jenga_cache import CachedLargePages
from allocators.layered.jenga_pools import LargePages
from allocators.layers import LayerGroup
from allocators.paged import Paged
from tests.allocators.layered.kinds import KINDS, TOKENS, with_window
from tests.allocators.layered.machine import tell_stories
from tests.allocators.layered.side_by_side import side_by_side
from tests.allocators.layered.slow_jenga import SlowJenga


def build(data, prefix_index, kinds):
    kinds = data.draw(with_window(kinds, 3, 6))
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=6,
        max_len=data.draw(st.integers(6, 30)),
        host_tokens=data.draw(st.sampled_from([0, 10, 40])),
        layer_groups=kinds,
        pool_bytes=data.draw(st.integers(300, 1500)),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    knobs = {"block_size": data.draw(st.integers(1, 4)), "request_aware": data.draw(st.booleans())}
    return lambda: Jenga.of(geometry, prefix_index=prefix_index, **knobs)


EXPECTED = {
    "admit refused",
    "grow refused",
    "copies of grow",
    "truncate",
    "quiet steps",
    "swaps_in",
}


@pytest.mark.parametrize("prefix_index", ["none", "hash"])
def test_every_byte_that_is_read_is_there_under_pressure(prefix_index):
    kinds, expected = KINDS, EXPECTED
    if prefix_index == "hash":
        kinds, expected = TOKENS, EXPECTED | {"hit tokens", "evictions"}
    totals = tell_stories(lambda data: build(data, prefix_index, kinds), 40, expected)
    assert {what for what in expected if not totals[what]} == set()


def test_a_large_page_is_the_least_common_multiple():
    """As the paper's example: pages of 256 and 384 bytes fit into large ones of 768."""
    pools = LargePages(10_000, [256, 384])
    assert (pools.large_bytes, pools.num_large, pools.per_large) == (768, 13, [3, 2])
    assert pools.places(0, np.array([0, 1, 2, 3])).tolist() == [0, 256, 512, 768]
    first = 13 * 3  # numbers of the second layer group's small pages come behind
    assert pools.places(1, first + np.array([0, 1, 2])).tolist() == [0, 384, 768]


def taken(pools, *wanted):
    """Take a small page for each (table, row); return the large page that each is of."""
    tables, rows = np.array(wanted).T
    assert pools.fits(np.bincount(tables, minlength=2))
    return (pools.places(0, pools.take(tables, rows)) // pools.large_bytes).tolist()


def test_a_sequence_fills_large_pages_of_its_own_and_leaves_them_whole():
    pools = LargePages(768 * 4, [256, 384])
    assert taken(pools, (0, 5), (0, 6), (0, 5), (0, 6)) == [0, 1, 0, 1]
    five = np.array([0, 1])
    pools.give(np.array([0, 0]), five)
    assert len(pools.large) == 3, "all that sequence 5 had is free for any layer group"


def test_sequences_fill_large_pages_together_if_told_to():
    pools = LargePages(768 * 4, [256, 384], request_aware=False)
    assert taken(pools, (0, 5), (0, 6), (0, 5), (0, 6)) == [0, 0, 0, 1]
    pools.left(np.array([5, 6]))
    assert taken(pools, (0, 7)) == [1]


def test_a_large_page_is_not_opened_where_others_would_lack_it():
    pools = LargePages(768 * 2, [256, 384])
    taken(pools, (0, 5))
    # One large page is left, which the second layer group is about to need: 6 goes to 5's.
    tables, rows = np.array([0, 1]), np.array([6, 6])
    assert pools.fits(np.array([1, 1]))
    first, second = pools.take(tables, rows)
    assert pools.places(0, np.array([first]))[0] == 256
    assert pools.places(1, np.array([second]))[0] == 768
    assert not pools.fits(np.array([2, 1]))
    assert pools.fits(np.array([1, 1]))


def test_no_large_page_is_a_reason():
    kinds = (LayerGroup("full", 1, 7), LayerGroup("state", 1, 1_000))
    geometry = Geometry(10, 2, 10, layer_groups=kinds, pool_bytes=10_000)
    with pytest.raises(NeverFits, match="no large page of 14000 bytes, the least common multiple"):
        Jenga.of(geometry)


def test_of_a_uniform_model_it_is_paged():
    uniform = Geometry(100, 6, 60, layers=2, kv_heads=3, head_dim=5)
    assert type(Jenga.of(uniform, prefix_index="hash", eviction="lru")) is Paged
    kinds = (LayerGroup("full", 2, uniform.bytes_per_token),)
    layered = replace(uniform, layer_groups=kinds, pool_bytes=uniform.capacity_bytes)
    for knobs in ({"block_size": 4}, {"block_size": 4, "prefix_index": "hash"}):
        both = [Paged.of(uniform, **knobs), Jenga.of(layered, **knobs)]
        known = "prefix_index" in knobs
        assert side_by_side(both, known=known) > 5
        assert both[0].balance() == both[1].balance()
        assert both[0].prefix_stats == both[1].prefix_stats
        assert (both[1].prefix_stats.hit_tokens > 500) == (both[1].evictions > 20) == known


@pytest.mark.parametrize(
    ("knobs", "error", "text"),
    [
        ({"block_size": 0}, ValueError, "block_size must be a whole number from 1 to 512"),
        ({"watermark": 1.0}, ValueError, "watermark must be"),
        ({"request_aware": 1}, ValueError, "request_aware must be true or false"),
        ({"prefix_index": "tree"}, ValueError, "prefix_index must be one of none, hash, radix"),
        ({"prefix_index": "radix"}, Unsupported, "layer groups have prefix_index=hash, not"),
        ({"eviction": "lru"}, TypeError, "Jenga has no eviction for models with layer groups"),
    ],
)
def test_a_knob_that_it_does_not_have_is_one_line(knobs, error, text):
    kinds = (LayerGroup("full", 1, 4), LayerGroup("sliding", 1, 4, window=4))
    with pytest.raises(error, match=text):
        Jenga.of(Geometry(100, 2, 40, layer_groups=kinds, pool_bytes=1_000), **knobs)


@pytest.mark.parametrize("sizes", [[256, 384], [256, 768], [64, 64], [6, 4, 3]])
@pytest.mark.parametrize("request_aware", [True, False])
def test_pages_are_taken_and_evicted_as_the_rules_say(sizes, request_aware):
    """Beside a plain statement of the rules, over random takes, hits and gives."""
    counts = Counter()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        large_bytes = int(np.lcm.reduce(sizes))
        pools = CachedLargePages(large_bytes * 7, sizes, request_aware)
        slow = SlowJenga(7, pools.per_large, request_aware)
        evicted: list[list[int]] = []
        pools.on_evict(evicted.append)
        ref = np.zeros(pools.num_pages, dtype=np.int64)
        of_row: dict[int, list[int]] = {row: [] for row in range(4)}
        for _ in range(120):
            what = rng.choice(["take", "take", "give", "hit", "end"])
            row = int(rng.integers(4))
            held = of_row[row]
            if what == "take":
                tables = np.sort(rng.integers(len(sizes), size=rng.integers(1, 5)))
                wanted = np.bincount(tables, minlength=len(sizes))
                assert pools.fits(wanted) == slow.fits(wanted.tolist())
                if not pools.fits(wanted):
                    counts["refused"] += 1
                    continue
                pages = pools.take(tables, np.full(len(tables), row))
                assert pages.tolist() == slow.take(tables.tolist(), [row] * len(tables))
                held += pages.tolist()
                ref[pages] = 1
                named = pages[rng.random(len(pages)) < 0.8]
                ends = rng.integers(1, 6, size=len(named))
                pools.name(named, ends)
                for page, end in zip(named.tolist(), ends.tolist(), strict=True):
                    small = slow.find(page)[1]
                    small.keyed, small.end = True, end
            elif what == "hit":
                cached = [page for page in range(len(ref)) if not ref[page] and pools.keyed(page)]
                found = [page for page in cached if rng.random() < 0.3][:3]
                counts["hits"] += len(found)
                pools.remove(np.array(found, dtype=np.int64))
                slow.hit(found)
                held += found
                ref[found] = 1
            else:
                some = [p for p in held if what == "end" or rng.random() < 0.4]
                tables = np.searchsorted(pools._first, some, side="right") - 1
                ref[some] = 0
                of_row[row] = [page for page in held if page not in some]
                pools.give(tables, np.array(some, dtype=np.int64))
                slow.give(some)
                if what == "end":
                    pools.left(np.array([row]))
                    slow.left(row)
            assert evicted == slow.evicted
            pools.check(ref)
        counts["one"] += sum(len(pages) == 1 for pages in evicted)
        counts["several"] += sum(len(pages) > 1 for pages in evicted)
    assert min(counts[what] for what in ("refused", "hits", "one"))
    assert bool(counts["several"]) == (len(set(sizes)) > 1)
