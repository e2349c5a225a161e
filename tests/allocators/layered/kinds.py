"""Layer groups of a few bytes, of every kind, that stories are told of."""

from hypothesis import strategies as st

from allocators.layers import LayerGroup

#: those that keep what tokens say, so that they have an index of prefixes
OF_TOKENS = (
    LayerGroup("full", 1, 4),
    LayerGroup("latent", 2, 6),
    LayerGroup("sliding", 2, 4, window=5),
    LayerGroup("sliding", 1, 6, window=1),
    LayerGroup("sliding", 1, 2, window=9),
    LayerGroup("chunked", 1, 4, window=6),
)
TOKENS = st.sampled_from(OF_TOKENS)
KINDS = st.sampled_from(
    [
        *OF_TOKENS,
        LayerGroup("state", 1, 12),
        LayerGroup("cross", 1, 4, encoder_tokens=3),
    ]
)


def with_window(kinds, most, slot_bytes):
    """Draw up to so many layer groups, and one with a window of 4 tokens behind them."""
    window = LayerGroup("sliding", 1, slot_bytes, window=4)
    return st.lists(kinds, min_size=1, max_size=most).map(lambda found: (*found, window))
