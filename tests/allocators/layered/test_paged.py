"""Paged with layer groups: stories under pressure, whoever shares the pages."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import strategies as st

from allocators.base import Demand, Geometry, NeverFits, Prompt, Unsupported
from allocators.layers import LayerGroup
from allocators.paged import Paged
from tests.allocators.layered.machine import tell_stories

WINDOWS = [
    LayerGroup("sliding", 2, 4, window=5),
    LayerGroup("sliding", 1, 4, window=1),
    LayerGroup("sliding", 1, 2, window=9),
    LayerGroup("chunked", 1, 2, window=6),
]
TOKENS = [LayerGroup("full", 1, 2), LayerGroup("full", 2, 8), *WINDOWS]
OTHERS = [
    LayerGroup("latent", 2, 12),
    LayerGroup("state", 1, 10),
    LayerGroup("state", 2, 8),
    LayerGroup("cross", 1, 4, encoder_tokens=3),
]


def build(data, groups, prefix_index, kinds):
    layer_groups = data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3, unique=True))
    layer_groups += [LayerGroup("sliding", 1, 4, window=4)]
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=6,
        max_len=data.draw(st.integers(6, 30)),
        host_tokens=data.draw(st.sampled_from([0, 20, 60])),
        layer_groups=tuple(data.draw(st.permutations(layer_groups))),
        pool_bytes=data.draw(st.integers(100, 900)) * (2 if groups == "split" else 1),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    knobs = {
        "groups": groups,
        "block_size": data.draw(st.integers(1, 5)),
        "watermark": data.draw(st.sampled_from([0.0, 0.1])),
        "prefix_index": prefix_index,
        "free_order": data.draw(st.sampled_from(["unkeyed_first", "by_age"])),
    }
    if groups == "split":
        knobs["window_share"] = data.draw(st.sampled_from([None, 0.3, 0.7]))

    def make():
        try:
            return Paged.of(geometry, **knobs)
        except (NeverFits, Unsupported):
            # Whatever it may be, this can always be built.
            small = {**knobs, "block_size": 1, "prefix_index": prefix_index}
            small.pop("window_share", None)
            plain = (LayerGroup("full", 1, 4), LayerGroup("sliding", 1, 4, window=4))
            return Paged.of(
                Geometry(
                    capacity_tokens=100,
                    max_seqs=6,
                    max_len=geometry.max_len,
                    layer_groups=plain,
                    pool_bytes=geometry.pool_bytes,
                ),
                **small,
            )

    return make


@pytest.mark.parametrize("groups", ["hybrid", "uniform", "split"])
def test_every_byte_that_is_read_is_there_under_pressure(groups):
    expected = {"admit refused", "grow refused", "copies of grow", "copies of admit", "swaps_in"}
    expected |= {"truncate", "suspend refused", "quiet steps", "expired"}
    if groups != "uniform":
        expected |= {"truncate unsupported"}
    totals = tell_stories(lambda data: build(data, groups, "none", TOKENS + OTHERS), 20, expected)
    assert not {what for what in expected if not totals[what]}, totals


@pytest.mark.parametrize("groups", ["hybrid", "uniform", "split"])
def test_a_hit_is_in_memory_wherever_it_is_read(groups):
    expected = {"admit refused", "grow refused", "hit tokens", "copies of grow", "evictions"}
    totals = tell_stories(lambda data: build(data, groups, "hash", TOKENS), 20, expected)
    assert not {what for what in expected if not totals[what]}, totals


def served(prefix_index, batch, seed):
    """Grow many rows, some of unknown tokens, all at once or one by one; return what is where."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=8,
        max_len=80,
        layer_groups=(LayerGroup("full", 1, 4), LayerGroup("sliding", 2, 8, window=6)),
        pool_bytes=84 * 16,
        step_tokens=30,
    )
    allocator = Paged.of(geometry, block_size=4, prefix_index=prefix_index)
    found, live = Counter(), []
    for _ in range(120):
        idle = [row for row in range(8) if row not in live]
        if idle and rng.random() < 0.4:
            ids = np.arange(80) // 40 * int(rng.integers(1, 3)) if rng.random() < 0.5 else None
            prompt, row = Prompt(int(rng.integers(1, 20)), ids), np.array(idle[:1])
            if allocator.admit(row, prompt, Demand(prompt.tokens, 60)) is not None:
                live.append(idle[0])
        rows = np.array(live, dtype=np.int64)
        while len(rows) and (
            allocator.length[rows].max() >= 80 or not grown(allocator, rows, batch)
        ):
            found["refused"] += 1
            allocator.release(rows[-1:])
            live.remove(rows[-1])
            rows = rows[:-1]
        allocator.begin_step()
        allocator.check()
    slots = [allocator.layer_slots(row, g).tolist() for row in live for g in range(3)]
    return slots, allocator.balance(), allocator.evictions, found["refused"]


def grown(allocator, rows, batch):
    if allocator.headroom(rows) < 1:
        return False
    calls = [rows] if batch else rows.reshape(-1, 1)
    return all(allocator.grow(call) is not None for call in calls)


@pytest.mark.parametrize("prefix_index", ["none", "hash"])
def test_a_batch_is_served_in_order_each_row_as_if_alone(prefix_index):
    evictions = refused = 0
    for seed in range(7):
        at_once = served(prefix_index, True, seed)
        assert at_once == served(prefix_index, False, seed)
        evictions, refused = evictions + at_once[2], refused + at_once[3]
    assert refused
    assert (evictions > 0) == (prefix_index == "hash")


def windowed(**knobs):
    """A full layer group and one with a window of 4 tokens; pages of 4."""
    kinds = (LayerGroup("full", 1, 4), LayerGroup("sliding", 1, 4, window=4))
    geometry = Geometry(400, 3, 80, layer_groups=kinds, pool_bytes=400 * 8)
    return Paged.of(geometry, block_size=4, **knobs)


def test_a_page_is_not_copied_where_the_other_that_shares_it_leaves_it():
    allocator, rows = windowed(), np.array([0, 1])
    allocator.admit(rows, Prompt(24), Demand(24, 40))
    allocator.truncate(1, 2)  # it writes into the last page that both hold
    allocator.begin_step()
    allocator.grow(rows[:1], 8)
    allocator.begin_step()
    # The token at position 32 leaves that page behind, in the layers with a window.
    assert allocator.grow(rows).copies[:, 3].tolist() == [0]
    allocator.check()


def test_of_rows_that_are_served_in_order_the_last_one_writes_in_place():
    allocator = windowed(prefix_index="hash")
    allocator.admit(np.array([0]), Prompt(21, np.arange(60)), Demand(21, 40))
    allocator.fork(0, np.array([1]), Demand(21, 40))
    allocator.admit(np.array([2]), Prompt(21), Demand(21, 40))  # leaves pages without keys
    allocator.begin_step()
    assert allocator.grow(np.arange(3)).copies[:, 3].tolist() == [0, 1]
    allocator.check()
