"""Jenga: two levels of pages, in stories under pressure, and beside `Paged`."""

from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.layered.jenga import Jenga
from allocators.layers import LayerGroup
from tests.allocators.layered.machine import tell_stories

KINDS = st.sampled_from(
    [
        LayerGroup("full", 1, 4),
        LayerGroup("latent", 2, 6),
        LayerGroup("sliding", 2, 4, window=5),
        LayerGroup("sliding", 1, 6, window=1),
        LayerGroup("sliding", 1, 2, window=9),
        LayerGroup("chunked", 1, 4, window=6),
        LayerGroup("state", 1, 12),
        LayerGroup("cross", 1, 4, encoder_tokens=3),
    ]
)


def build(data):
    kinds = data.draw(st.lists(KINDS, min_size=1, max_size=3))
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=6,
        max_len=data.draw(st.integers(6, 30)),
        layer_groups=(*kinds, LayerGroup("sliding", 1, 6, window=4)),
        pool_bytes=data.draw(st.integers(300, 1500)),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    knobs = {"block_size": data.draw(st.integers(1, 4))}
    return lambda: Jenga.of(geometry, **knobs)


def test_every_byte_that_is_read_is_there_under_pressure():
    totals = tell_stories(build, 150)
    expected = {"admit refused", "grow refused", "copies of grow", "truncate", "quiet steps"}
    assert {what for what in expected if not totals[what]} == set()
