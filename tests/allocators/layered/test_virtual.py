"""Virtual with layer groups: what is mapped, unmapped and promised, in stories under pressure."""

import pytest
from hypothesis import strategies as st

from allocators.base import Geometry, Unsupported
from allocators.layers import LayerGroup
from allocators.virtual import Virtual
from tests.allocators.layered.machine import tell_stories

KIB = 1 << 10
PAGE = 64 * KIB
#: of one layer: in keys, and in values, a page holds 2 to 8 tokens
KINDS = st.sampled_from(
    [
        LayerGroup("full", 1, PAGE),
        LayerGroup("full", 2, 2 * PAGE),
        LayerGroup("latent", 2, PAGE),
        LayerGroup("sliding", 2, PAGE, window=5),
        LayerGroup("sliding", 1, PAGE // 2, window=1),
        LayerGroup("chunked", 1, PAGE, window=6),
        LayerGroup("state", 1, PAGE // 2),
        LayerGroup("state", 1, 3 * PAGE),
        LayerGroup("cross", 1, PAGE, encoder_tokens=3),
    ]
)
WITH_WINDOW = st.lists(KINDS, min_size=1, max_size=3).map(
    lambda kinds: (*kinds, LayerGroup("sliding", 1, PAGE // 2, window=4))
)


def build(data, background, deferred):
    kinds = data.draw(WITH_WINDOW)
    ranks = data.draw(st.sampled_from([1, 1, 2]))
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=5,
        max_len=data.draw(st.integers(6, 40)),
        ranks=ranks,
        host_tokens=0,
        layer_groups=kinds,
        pool_bytes=PAGE * ranks * data.draw(st.integers(30, 120)),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    layout = data.draw(st.sampled_from(["per_layer", "per_layer", "sliced"]))
    knobs = {"page_size": "64KiB", "background": background, "deferred": deferred}
    try:
        Virtual.of(geometry, layout=layout, **knobs)
    except Unsupported:
        layout = "per_layer"
    return lambda: Virtual.of(geometry, layout=layout, **knobs)


@pytest.mark.parametrize("deferred", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_every_byte_that_is_read_is_mapped_under_pressure(background, deferred):
    totals = tell_stories(lambda data: build(data, background, deferred), 50)
    expected = {"admit refused", "grow refused", "copies", "maps", "unmaps", "truncate"}
    expected |= {"expired", "maps of fork", "unmaps of reassign", "quiet steps"}
    assert {what for what in expected if not totals[what]} == set()
