"""What keeping every token in every layer wastes: closed forms, in the policy's own account.

The motivation of Jenga (SOSP 2025, arXiv 2503.18292): a page that holds a token in all layers is
held for those that do not read it any more, or never did.
"""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt
from allocators.layers import LayerGroup
from allocators.paged import Paged

LAYER = 1024  # bytes of a token in a layer


def gemma_2(layers=42):
    half = layers // 2
    return (
        LayerGroup("full", half, half * LAYER),
        LayerGroup("sliding", half, half * LAYER, window=4096),
    )


def ministral(layers=36):
    windows = layers * 3 // 4
    return (
        LayerGroup("full", layers - windows, (layers - windows) * LAYER),
        LayerGroup("sliding", windows, windows * LAYER, window=32768),
    )


LLAMA_VISION = (
    LayerGroup("full", 32, 32 * LAYER),
    LayerGroup("cross", 8, 8 * LAYER, encoder_tokens=6193),
)


def used(groups, tokens, block_size=1, policy="uniform"):
    """Return the account of one sequence that has computed `tokens` tokens, the last one alone."""
    pool_bytes = 2 * (tokens + 7000) * sum(group.slot_bytes for group in groups)
    geometry = Geometry(
        capacity_tokens=tokens,
        max_seqs=1,
        max_len=tokens,
        layer_groups=groups,
        pool_bytes=pool_bytes,
    )
    allocator = Paged.of(geometry, groups=policy, block_size=block_size)
    row = np.zeros(1, dtype=np.int64)
    assert allocator.admit(row, Prompt(tokens - 1), Demand(tokens - 1, 2)) is not None
    allocator.begin_step()
    assert allocator.grow(row, 1) is not None
    allocator.begin_step()
    allocator.check()
    return allocator.usage(row, np.array([tokens]))


def shares(usage):
    held = sum(int(getattr(usage, of)[0]) for of in ("token", "reserved", "internal", "expired"))
    return int(usage.token[0]) / held, int(usage.expired[0]) / held, int(usage.internal[0]) / held


@pytest.mark.parametrize(
    ("groups", "tokens", "wasted"),
    [(gemma_2(), 8192, 0.25), (ministral(), 131072, 0.5625)],
    ids=["Gemma 2", "Ministral"],
)
@pytest.mark.parametrize("block_size", [1, 16])
def test_windows_leave_what_no_token_reads(groups, tokens, wasted, block_size):
    token, expired, internal = shares(used(groups, tokens, block_size))
    assert expired == wasted
    assert token == 1 - wasted
    assert internal == 0


def test_cross_layers_hold_text_and_the_others_an_encoder():
    token, expired, internal = shares(used(LLAMA_VISION, 43))
    assert internal == 1 - (32 * 43 + 8 * 6193) / (40 * 6236)
    assert round(internal, 3) == 0.796
    assert (round(token, 3), expired) == (0.204, 0)


@pytest.mark.parametrize("policy", ["hybrid", "split"])
@pytest.mark.parametrize(
    ("groups", "tokens"), [(gemma_2(), 8192), (ministral(), 131072), (LLAMA_VISION, 43)]
)
def test_tables_of_their_own_waste_nothing_of_it(groups, tokens, policy):
    usage = used(groups, tokens, policy=policy)
    if policy == "hybrid" and groups is LLAMA_VISION:
        # Tables of 8 layers: a page is as large for the cross layers as for eight of the others.
        assert int(usage.token[0]) == (32 * 43 + 8 * 6193) * LAYER
    token, expired, internal = shares(usage)
    assert (token, expired, internal) == (1, 0, 0)
