"""Paged with layer groups: stories under pressure, whoever shares the pages."""

import pytest
from hypothesis import strategies as st

from allocators.base import Geometry, NeverFits, Unsupported
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
    totals = tell_stories(lambda data: build(data, groups, "none", TOKENS + OTHERS), 40)
    expected = {"admit refused", "grow refused", "copies of grow", "copies of admit", "swaps_in"}
    expected |= {"truncate", "suspend refused", "quiet steps", "expired"}
    if groups != "uniform":
        expected |= {"truncate unsupported"}
    assert not {what for what in expected if not totals[what]}, totals


@pytest.mark.parametrize("groups", ["hybrid", "uniform", "split"])
def test_a_hit_is_in_memory_wherever_it_is_read(groups):
    totals = tell_stories(lambda data: build(data, groups, "hash", TOKENS), 40)
    expected = {"admit refused", "grow refused", "hit tokens", "copies of grow", "evictions"}
    assert not {what for what in expected if not totals[what]}, totals
