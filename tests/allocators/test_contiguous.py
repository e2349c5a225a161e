"""Reservations: what each policy sets aside, and the Orca baselines' exact figures."""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, NeverFits, Prompt
from allocators.contiguous import Contiguous
from allocators.placement import PLACEMENTS

#: OPT-13B in 12 GiB: 800 KiB a token (PagedAttention, section 6.1)
OPT_13B = Geometry(15_729, 64, 2048, layers=40, kv_heads=40, head_dim=128)


def test_the_pool_of_the_paper_is_twelve_gib():
    assert OPT_13B.bytes_per_token == 800 << 10
    assert OPT_13B.capacity_tokens == -(-(12 << 30) // OPT_13B.bytes_per_token) == 15_729


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_seven_sequences_fit_when_each_reserves_the_maximum(placement):
    allocator = Contiguous(OPT_13B, reservation="max", placement=placement)
    granted = 0
    while allocator.admit(np.array([granted]), Prompt(10), Demand(10, 10)) is not None:
        granted += 1
    assert granted == 15_729 // 2048 == 7
    usage = allocator.usage(np.arange(7), np.full(7, 19))
    # Orca (Max) in the paper's Fig. 2: 8.9 % external.
    assert usage.free[0] == (15_729 - 7 * 2048) * OPT_13B.bytes_per_token
    assert round(100 * usage.free[0] / OPT_13B.capacity_bytes, 1) == 8.9


@pytest.mark.parametrize(
    ("reservation", "slots"), [("max", 2048), ("pow2", 100 + 64), ("oracle", 139), ("grow", 128)]
)
def test_what_a_request_of_100_and_40_tokens_reserves(reservation, slots):
    allocator = Contiguous(OPT_13B, reservation=reservation, placement="first_fit")
    allocator.admit(np.array([3]), Prompt(100), Demand(100, 40))
    assert allocator.balance() == (slots, 0, 15_729 - slots)


def test_buddy_rounds_a_reservation_up_and_says_so():
    allocator = Contiguous(OPT_13B, reservation="oracle", placement="buddy")
    allocator.admit(np.array([0]), Prompt(100), Demand(100, 40))
    usage = allocator.usage(np.array([0]), np.array([139]))
    slots = [int(x[0]) // OPT_13B.bytes_per_token for x in (
        usage.token, usage.reserved, usage.internal, usage.round_up
    )]  # fmt: skip
    assert slots == [100, 39, 0, 256 - 139]


def test_a_group_copies_the_prompt_to_each_of_the_others():
    allocator = Contiguous(OPT_13B, reservation="oracle", placement="first_fit")
    grant = allocator.admit(np.array([0, 1, 2]), Prompt(100), Demand(100, 40))
    assert grant.copies.tolist() == [[0, 139, 100], [0, 278, 100]]


def test_growing_doubles_and_moves():
    allocator = Contiguous(OPT_13B, reservation="grow", placement="first_fit")
    allocator.admit(np.array([0]), Prompt(8), Demand(8, 40))
    assert allocator.grow(np.array([0])).copies.tolist() == [[0, 8, 8]]
    assert allocator.balance()[0] == 16


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_group_that_no_empty_pool_holds_never_fits_even_while_others_run(placement):
    """Regression: it was told to wait as long as anything was active."""
    allocator = Contiguous(OPT_13B, reservation="max", placement=placement)
    allocator.admit(np.array([0]), Prompt(10), Demand(10, 10))
    with pytest.raises(NeverFits, match="8 extents of 2048 slots"):
        allocator.admit(np.arange(1, 9), Prompt(10), Demand(10, 10))
