"""How layer groups are spread over tables and pools: vLLM's rule, one table, and static shares."""

import pytest

from allocators.base import Geometry, NeverFits, Unsupported
from allocators.layered.build import pool_shares
from allocators.layered.grouping import hybrid, split, uniform
from allocators.layers import LayerGroup
from allocators.paged import Paged

KIB = 1024


def full(layers, a_layer=4 * KIB):
    return LayerGroup("full", layers, layers * a_layer)


def sliding(layers, window, a_layer=4 * KIB):
    return LayerGroup("sliding", layers, layers * a_layer, window=window)


def tables(*groups, block_size=16):
    """Return (kind, layers, tokens of a page) of each table, and the bytes of a page."""
    spread = hybrid(groups, block_size)
    sizes = {table.page_bytes for table in spread.tables}
    assert len(sizes) == 1, "pages are not equally large"
    layers = [spread.layer_groups[table.members[0]].layers for table in spread.tables]
    found = [
        (table.kind, count, table.page_tokens)
        for table, count in zip(spread.tables, layers, strict=True)
    ]
    return found, sizes.pop()


def test_the_fewest_layers_of_a_kind_make_a_table():
    found, size = tables(full(10), sliding(50, 1024))  # Gemma 3: five to one
    assert found == [("full", 10, 16), *[("sliding", 10, 16)] * 5]
    assert size == 10 * 16 * 4 * KIB


def test_layers_left_over_are_dealt_out_and_the_last_tables_padded():
    # Gemma 3 27B: 52 sliding, 10 full layers. vLLM deals layer i to table i modulo 6.
    found, size = tables(sliding(52, 1024), full(10))
    assert [layers for kind, layers, _ in found if kind == "sliding"] == [9, 9, 9, 9, 8, 8]
    assert size == 10 * 16 * 4 * KIB


@pytest.mark.parametrize(
    ("more", "layers"), [(12, [12, 12]), (13, [12, 13]), (17, [12, 17]), (18, [12, 9, 9])]
)
def test_the_most_layers_of_a_kind_make_a_table_below_one_and_a_half_times_the_fewest(more, layers):
    found, size = tables(full(12), sliding(more, 128))
    assert [count for _, count, _ in found] == layers
    assert size == (more if more < 18 else 12) * 16 * 4 * KIB


def test_a_smaller_page_gets_more_tokens_or_is_padded():
    assert tables(full(2), sliding(2, 64, 2 * KIB))[0] == [("full", 2, 16), ("sliding", 2, 32)]
    found, size = tables(full(2), sliding(2, 64, 3 * KIB))
    assert found == [("full", 2, 16), ("sliding", 2, 16)]
    assert size == 2 * 16 * 4 * KIB  # three quarters of a sliding page hold something


def test_pages_of_tokens_grow_until_they_hold_a_state():
    state = LayerGroup("state", 3, 3 * 150 * KIB)
    found, size = tables(full(1), state)  # a block has 64 KiB
    assert found == [("full", 1, 48), *[("state", 1, 1)] * 3]
    assert size == 48 * 4 * KIB


def test_layers_that_keep_the_same_are_one_kind_however_they_are_listed():
    assert tables(full(2), sliding(1, 8), sliding(1, 8), sliding(2, 9)) == tables(
        full(2), sliding(2, 8), sliding(2, 9)
    )


def test_kinds_that_all_keep_the_same_tokens_share_one_table():
    latent = LayerGroup("latent", 4, 4 * 1152)
    spread = hybrid((full(2), latent), 16)
    assert [table.members for table in spread.tables] == [(0, 1)]
    assert spread.tables[0].page_bytes == 16 * (2 * 4 * KIB + 4 * 1152)
    assert len(hybrid((sliding(2, 8), sliding(4, 8, KIB)), 16).tables) == 1


def test_a_latent_page_is_not_padded():
    with pytest.raises(Unsupported, match="no multiple of a block"):
        hybrid((full(2), LayerGroup("latent", 4, 4 * 1152), sliding(4, 8)), 16)


def test_uniform_keeps_all_tokens_in_one_table_and_no_state():
    spread = uniform((full(2), sliding(2, 8), LayerGroup("cross", 1, 512, encoder_tokens=20)), 16)
    (table,) = spread.tables
    assert (table.kind, table.before) == ("full", 32)
    assert table.page_bytes == 16 * (16 * KIB + 512)
    with pytest.raises(Unsupported, match="groups=uniform"):
        uniform((full(2), LayerGroup("state", 1, 100)), 16)


def test_split_has_a_pool_and_a_page_of_its_own_bytes_for_each():
    spread = split((full(2), sliding(6, 8), LayerGroup("state", 1, 100)), 16)
    assert [table.page_tokens for table in spread.tables] == [16, 16, 1]
    assert [table.pool for table in spread.tables] == [0, 1, 2]
    assert [table.page_bytes for table in spread.tables] == [16 * 8 * KIB, 16 * 24 * KIB, 100]


def geometry(*groups, pool_bytes=2**20):
    return Geometry(100, 4, 4096, layer_groups=groups, pool_bytes=pool_bytes)


def test_static_shares_are_those_of_sglang_unless_one_is_given():
    # Of SGLang, windowed layers hold 0.8 tokens for each of a full one; states 0.9 of its bytes.
    shares = pool_shares(geometry(full(1), sliding(3, 128)), None)
    assert shares == pytest.approx([1 / 3.4, 2.4 / 3.4])
    shares = pool_shares(geometry(full(1), LayerGroup("state", 1, 100)), None)
    assert shares == pytest.approx([1 / 1.9, 0.9 / 1.9])


def test_a_given_share_goes_to_windows_by_what_a_sequence_holds_there():
    given = geometry(full(1), full(3), sliding(1, 100), sliding(2, 200))
    assert pool_shares(given, 0.5) == pytest.approx([0.125, 0.375, 0.1, 0.4])


def test_a_share_of_what_is_not_there_is_refused():
    with pytest.raises(Unsupported, match="window_share"):
        pool_shares(geometry(full(1), full(2)), 0.5)
    with pytest.raises(NeverFits, match="sliding layers' share"):
        Paged.of(
            geometry(full(1), sliding(3, 8), pool_bytes=2**18), groups="split", window_share=0.1
        )


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({"groups": "some"}, "groups must be one of hybrid, uniform, split"),
        ({"window_share": 1.0}, "window_share must be null or between 0 and 1"),
        ({"window_share": True}, "window_share must be null or between 0 and 1"),
        ({"retention_tokens": -16}, "retention_tokens must be null or a whole number from 0"),
        ({"retention_tokens": 1.5}, "retention_tokens must be null or a whole number from 0"),
        ({"block_size": 0}, "block_size must be"),
        ({"prefix_index": "tree"}, "prefix_index must be one of"),
    ],
)
def test_a_bad_knob_is_named_whatever_the_model(knobs, text):
    for pool in (geometry(full(1), sliding(1, 8)), Geometry(100, 4, 100)):
        with pytest.raises(ValueError, match=text):
            Paged.of(pool, **knobs)


def test_hits_end_where_a_block_of_every_table_does():
    pool = geometry(full(1), sliding(1, 8))
    with pytest.raises(ValueError, match="retention_tokens must be a multiple of 16"):
        Paged.of(pool, prefix_index="hash", retention_tokens=24)


@pytest.mark.parametrize(
    ("groups", "knobs", "text"),
    [
        ((full(1), LayerGroup("state", 1, 64)), {"prefix_index": "hash"}, "a state holds all"),
        (
            (full(1), sliding(1, 8)),
            {"prefix_index": "radix"},
            "prefix_index=hash with eviction=lru",
        ),
        ((full(1), sliding(1, 8)), {"offload": True}, "offload saves blocks of uniform models"),
        (
            (full(1), LayerGroup("cross", 1, 64, encoder_tokens=4)),
            {"prefix_index": "hash"},
            "whether two requests have the same encoder's tokens",
        ),
    ],
)
def test_what_layer_groups_cannot_do_is_unsupported_with_a_reason(groups, knobs, text):
    with pytest.raises(Unsupported, match=text):
        Paged.of(geometry(*groups, pool_bytes=2**24), **knobs)
