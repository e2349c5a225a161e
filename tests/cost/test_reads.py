"""What attention reads by layer group, against a count token by token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.layers import LayerGroup
from harness.cost.reads import decode_reads, prefill_reads

WINDOWS = st.integers(1, 40)
GROUPS = st.one_of(
    st.sampled_from([LayerGroup("full", 1, 1), LayerGroup("latent", 1, 1)]),
    st.builds(lambda window: LayerGroup("sliding", 1, 1, window), WINDOWS),
    st.builds(lambda chunk: LayerGroup("chunked", 1, 1, chunk), WINDOWS),
    st.just(LayerGroup("state", 1, 1)),
    st.builds(lambda n: LayerGroup("cross", 1, 1, encoder_tokens=n), st.integers(1, 9)),
)
LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=6)


def reads(group, position):
    """Count the slots that the token at `position` reads, one by one."""
    if not group.grows:
        return group.encoder_tokens or 1
    first = int(group.first_read(np.array([position]))[0])
    return len(range(first, position + 1))


@given(st.lists(GROUPS, min_size=1, max_size=3), LENGTHS, st.integers(1, 90))
def test_decoding_reads_what_each_token_reads(groups, lengths, steps):
    found = decode_reads(groups, np.array(lengths), steps)
    expected = [
        [sum(reads(group, length - 1 + step) for length in lengths) for step in range(steps)]
        for group in groups
    ]
    assert found.tolist() == expected


@given(st.lists(GROUPS, min_size=1, max_size=3), LENGTHS)
def test_one_step_is_the_first_of_several(groups, lengths):
    one, two = (decode_reads(groups, np.array(lengths), steps) for steps in (1, 2))
    assert one[:, 0].tolist() == two[:, 0].tolist()


def test_no_sequence_reads_nothing():
    groups = [LayerGroup("sliding", 1, 1, 4), LayerGroup("chunked", 1, 1, 4)]
    assert decode_reads(groups, np.empty(0, dtype=np.int64), 3).tolist() == [[0, 0, 0]] * 2


@given(GROUPS, st.lists(st.tuples(st.integers(1, 60), st.integers(0, 90)), min_size=1, max_size=4))
def test_a_prompt_reads_what_its_tokens_read(group, pieces):
    new, past = np.array(pieces).T
    own, read, crossed, squares = prefill_reads(group, new, past)
    assert own == new.sum()
    pairs = crossed + squares / 2
    if not group.grows:
        each = group.encoder_tokens or 1
        moved = 2 if group.kind == "state" else each  # read and written
        assert (read, pairs) == (len(pieces) * moved, own * each)
        return
    positions = [p for n, before in pieces for p in range(before, before + n)]
    # A token that reads one more than the one before it counts its own key half.
    halves = [0.0 if group.kind == "sliding" and p >= group.window else 0.5 for p in positions]
    assert pairs == sum(reads(group, p) for p in positions) - sum(halves)
    firsts = [int(group.first_read(np.array([before]))[0]) for _, before in pieces]
    assert read == sum(before + n - at for (n, before), at in zip(pieces, firsts, strict=True))


@pytest.mark.parametrize("kind", ["sliding", "chunked"])
def test_a_window_beyond_every_sequence_is_full_attention(kind):
    new, past = np.array([3, 700, 1]), np.array([0, 12_000, 99])
    found = prefill_reads(LayerGroup(kind, 1, 1, 10**6), new, past)
    full = prefill_reads(LayerGroup("full", 1, 1), new, past)
    assert (found.own, found.read) == (full.own, full.read)
    assert found.crossed + found.squares / 2 == full.crossed + full.squares / 2
