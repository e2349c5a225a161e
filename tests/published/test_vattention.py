"""Figures of the vAttention paper (arXiv 2405.04437) that the harness must reproduce.

`docs/virtual.md` shows the same figures with the commands that print them.
"""

import pytest

from harness.cost.spec import SMALL_MAP_US, SMALL_MAP_US_RANGE
from tests.published.vattention import PUBLISHED_SHARE, SETUPS, largest_share


def test_the_price_of_small_pages_explains_the_published_share_of_prefill_and_its_ends_do_not():
    low, high = SMALL_MAP_US_RANGE
    shares = [largest_share(model, SMALL_MAP_US) for model in SETUPS]
    assert min(shares) < PUBLISHED_SHARE < max(shares)
    assert max(shares) == pytest.approx(PUBLISHED_SHARE, rel=0.35)
    assert max(largest_share(model, low) for model in SETUPS) < PUBLISHED_SHARE / 2
    assert min(largest_share(model, high) for model in SETUPS) > PUBLISHED_SHARE * 2
