"""Contiguous with layer groups: rings, closed forms, and stories under pressure."""

import numpy as np
import pytest
from hypothesis import strategies as st

from allocators.base import Demand, Geometry, Prompt
from allocators.contiguous import RESERVATIONS, Contiguous
from allocators.layers import LayerGroup
from allocators.placement import PLACEMENTS
from tests.allocators.layered.kinds import KINDS, with_window
from tests.allocators.layered.machine import tell_stories
from tests.allocators.layered.side_by_side import side_by_side


def build(data, reservation):
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=6,
        max_len=data.draw(st.integers(6, 30)),
        host_tokens=data.draw(st.sampled_from([0, 20, 60])),
        layer_groups=data.draw(with_window(KINDS, 4, 4)),
        pool_bytes=data.draw(st.integers(200, 1500)),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    placement = data.draw(st.sampled_from(sorted(PLACEMENTS)))
    ring = data.draw(st.sampled_from([True, True, False]))
    knobs = {"reservation": reservation, "placement": placement, "ring": ring}
    return lambda: Contiguous.of(geometry, **knobs)


@pytest.mark.parametrize("reservation", RESERVATIONS)
def test_every_byte_that_is_read_is_there_under_pressure(reservation):
    expected = {"admit refused", "copies of fork", "copies of reassign", "swaps_in", "expired"}
    expected |= {"truncate", "truncate unsupported", "suspend refused", "quiet steps"}
    if reservation == "grow":
        expected |= {"grow refused", "copies of grow"}
    totals = tell_stories(lambda data: build(data, reservation), 20, expected)
    assert {what for what in expected if not totals[what]} == set()


FULL = LayerGroup("full", 12, 24_576)


def one(kinds, length, max_len, **knobs):
    """Return a contiguous policy in which one sequence has just computed its last token."""
    pool = 2 * sum(kind.slot_bytes * max(max_len, kind.encoder_tokens) for kind in kinds)
    geometry = Geometry(max_len, 2, max_len, layer_groups=kinds, pool_bytes=pool, **knobs)
    allocator = Contiguous.of(geometry, reservation="oracle", placement="first_fit", ring=False)
    row = np.array([0])
    allocator.admit(row, Prompt(length - 1), Demand(length - 1, 2))
    allocator.begin_step()
    allocator.grow(row)
    allocator.begin_step()
    return allocator.usage(row, np.array([length]))


@pytest.mark.parametrize(
    ("full", "sliding", "window", "length", "wasted"),
    [(21, 21, 4_096, 8_192, 25.0), (9, 27, 32_768, 131_072, 56.25)],
    ids=["gemma-2", "ministral"],
)
def test_what_lies_behind_a_window_is_expired_as_published(full, sliding, window, length, wasted):
    """Jenga (arXiv 2503.18292): what a manager wastes that keeps every token in every layer."""
    kinds = (LayerGroup("full", full, full), LayerGroup("sliding", sliding, sliding, window=window))
    usage = one(kinds, length, length)
    held = usage.token[0] + usage.expired[0]
    assert held == length * (full + sliding)
    assert 100 * usage.expired[0] / held == wasted


def test_cross_layers_hold_their_encoders_tokens_and_no_others():
    """Llama 3.2 11B Vision with 43 text and 6,193 image tokens (Jenga, section 3): 79.6 % less."""
    kinds = (LayerGroup("full", 32, 32), LayerGroup("cross", 8, 8, encoder_tokens=6_193))
    usage = one(kinds, 43, 64)
    assert usage.token[0] == 32 * 43 + 8 * 6_193
    assert round(100 * (1 - usage.token[0] / (40 * (43 + 6_193))), 1) == 79.6


def test_a_ring_holds_the_window_and_a_step():
    geometry = Geometry(
        1_000, 2, 1_000, layer_groups=(FULL, LayerGroup("sliding", 12, 24_576, window=128)),
        pool_bytes=2_000 * 24_576, step_tokens=64,
    )  # fmt: skip
    ring = Contiguous.of(geometry, reservation="max", placement="first_fit")
    ring.admit(np.array([0]), Prompt(64), Demand(64, 100))
    assert ring.balance()[0] == 1_000 + (127 + 64)
    assert ring.headroom(np.array([0])) == 127  # then position 0 is overwritten, and still read
    assert ring.grow(np.array([0]), 128) is None
    whole = Contiguous.of(geometry, reservation="max", placement="first_fit", ring=False)
    whole.admit(np.array([0]), Prompt(64), Demand(64, 100))
    assert whole.balance()[0] == 2 * 1_000


def test_a_copy_out_of_a_ring_goes_round_its_end():
    kinds = (LayerGroup("sliding", 1, 4, window=5),)
    geometry = Geometry(100, 2, 40, layer_groups=kinds, pool_bytes=400, step_tokens=4)
    allocator = Contiguous.of(geometry, reservation="max", placement="first_fit")
    allocator.admit(np.array([0]), Prompt(4), Demand(4, 30))
    for _ in range(6):
        allocator.begin_step()
        allocator.grow(np.array([0]))
    allocator.begin_step()
    # A ring of 8; 10 tokens: the next reads positions 6 to 9, in its slots 6, 7, 0 and 1.
    grant = allocator.fork(0, np.array([1]), Demand(10, 1))
    stride, second = allocator.stride, 8
    assert grant.copies.tolist() == [
        [6, second * stride + 6, 2, 0],
        [0, second * stride, 2, 0],
    ]


def test_a_prompt_that_is_longer_than_a_step_has_a_longer_ring():
    kinds = (LayerGroup("sliding", 1, 4, window=5),)
    geometry = Geometry(100, 2, 40, layer_groups=kinds, pool_bytes=400, step_tokens=4)
    allocator = Contiguous.of(geometry, reservation="max", placement="first_fit")
    allocator.admit(np.array([0]), Prompt(20), Demand(20, 2))
    assert allocator.balance()[0] == 4 + 20
    allocator.begin_step()
    assert allocator.headroom(np.array([0])) == 4  # a step's tokens, as with any prompt
    # The next token reads positions 16 to 19, in slots 0 to 3 of a ring of 8.
    assert allocator.fork(0, np.array([1]), Demand(20, 1)).copies.tolist() == [
        [16, 24 * allocator.stride, 4, 0]
    ]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("reservation", RESERVATIONS)
def test_one_full_layer_group_is_a_uniform_model(reservation, placement):
    shape = {"layers": 2, "kv_heads": 3, "head_dim": 5}
    uniform = Geometry(150, 6, 60, **shape)
    kinds = (LayerGroup("full", 2, uniform.bytes_per_token),)
    layered = Geometry(150, 6, 60, layer_groups=kinds, pool_bytes=uniform.capacity_bytes, **shape)
    knobs = {"reservation": reservation, "placement": placement}
    both = [Contiguous.of(geometry, **knobs) for geometry in (uniform, layered)]
    assert side_by_side(both) > 5
    assert both[0].start.tolist() == both[1].start.tolist()
