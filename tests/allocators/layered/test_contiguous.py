"""Contiguous with layer groups: rings, closed forms, and stories under pressure."""

import pytest
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.contiguous import RESERVATIONS, Contiguous
from allocators.layers import LayerGroup
from allocators.placement import PLACEMENTS
from tests.allocators.layered.machine import tell_stories

KINDS = st.sampled_from(
    [
        LayerGroup("full", 1, 4),
        LayerGroup("latent", 2, 6),
        LayerGroup("sliding", 2, 4, window=5),
        LayerGroup("sliding", 1, 6, window=1),
        LayerGroup("sliding", 1, 2, window=9),
        LayerGroup("chunked", 1, 4, window=6),
        LayerGroup("state", 1, 10),
        LayerGroup("cross", 1, 4, encoder_tokens=3),
    ]
)
WITH_WINDOW = st.lists(KINDS, min_size=1, max_size=4).map(
    lambda kinds: (*kinds, LayerGroup("sliding", 1, 4, window=4))
)


def build(data, reservation):
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=6,
        max_len=data.draw(st.integers(6, 30)),
        host_tokens=data.draw(st.sampled_from([0, 20, 60])),
        layer_groups=data.draw(WITH_WINDOW),
        pool_bytes=data.draw(st.integers(200, 1500)),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    placement = data.draw(st.sampled_from(sorted(PLACEMENTS)))
    ring = data.draw(st.sampled_from([True, True, False]))
    knobs = {"reservation": reservation, "placement": placement, "ring": ring}
    return lambda: Contiguous.of(geometry, **knobs)


@pytest.mark.parametrize("reservation", RESERVATIONS)
def test_every_byte_that_is_read_is_there_under_pressure(reservation):
    totals = tell_stories(lambda data: build(data, reservation), 60)
    expected = {"admit refused", "copies of fork", "copies of reassign", "swaps_in", "expired"}
    expected |= {"truncate", "truncate unsupported", "suspend refused", "quiet steps"}
    if reservation == "grow":
        expected |= {"grow refused", "copies of grow"}
    assert {what for what in expected if not totals[what]} == set()
