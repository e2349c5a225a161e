"""Virtual with layer groups: what is mapped, unmapped and promised, in stories under pressure."""

import numpy as np
import pytest
from hypothesis import strategies as st

from allocators.base import Demand, Geometry, Prompt, Unsupported
from allocators.layers import LayerGroup
from allocators.virtual import Virtual
from tests.allocators.layered.kinds import with_window
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


def build(data, background, deferred, sizes=("64KiB", None), most_pages=120):
    """`sizes` are those of pages, and of pages of windows; `most_pages` are of 64 KiB."""
    kinds = data.draw(with_window(KINDS, 3, PAGE // 2))
    ranks = data.draw(st.sampled_from([1, 1, 2]))
    geometry = Geometry(
        capacity_tokens=100,
        max_seqs=5,
        max_len=data.draw(st.integers(6, 40)),
        ranks=ranks,
        host_tokens=data.draw(st.sampled_from([0, 10, 40])),
        layer_groups=kinds,
        pool_bytes=PAGE * ranks * data.draw(st.integers(30, most_pages)),
        step_tokens=data.draw(st.sampled_from([0, 1, 3, 8])),
    )
    layout = data.draw(st.sampled_from(["per_layer", "per_layer", "sliced"]))
    knobs = {"page_size": sizes[0], "window_page_size": sizes[1]}
    knobs |= {"background": background, "deferred": deferred}
    try:
        Virtual.of(geometry, layout=layout, **knobs)
    except Unsupported:
        layout = "per_layer"
    return lambda: Virtual.of(geometry, layout=layout, **knobs)


@pytest.mark.parametrize(
    ("background", "deferred"),
    [
        (True, True),
        # The conformance suite has these too.
        *(
            pytest.param(*case, marks=pytest.mark.further)
            for case in ((True, False), (False, True), (False, False))
        ),
    ],
)
def test_every_byte_that_is_read_is_mapped_under_pressure(background, deferred):
    expected = {"admit refused", "grow refused", "copies", "maps", "unmaps", "truncate"}
    expected |= {"expired", "maps of fork", "unmaps of reassign", "swaps_in"}
    totals = tell_stories(lambda data: build(data, background, deferred), 20, expected)
    assert {what for what in expected if not totals[what]} == set()


@pytest.mark.parametrize(
    ("sizes", "background"),
    [
        (("128KiB", "64KiB"), True),
        *(
            pytest.param(*case, marks=pytest.mark.further)
            for case in (
                (("128KiB", "64KiB"), False),
                (("64KiB", "128KiB"), True),
                (("256KiB", "64KiB"), True),
                (("64KiB", "256KiB"), False),
            )
        ),
    ],
)
def test_pages_of_two_sizes_keep_every_promise_under_pressure(sizes, background):
    expected = {"admit refused", "grow refused", "copies", "maps", "unmaps", "truncate"}
    expected |= {"expired", "swaps_in", "converted", "made whole", "quiet steps"}

    def make(data):
        return build(data, background, data.draw(st.booleans()), sizes, 160)

    totals = tell_stories(make, 25, expected)
    assert {what for what in expected if not totals[what]} == set()


def windowed(pages=200, window=8, **knobs):
    """A full and a sliding layer; a page-group of either is two pages and holds 4 tokens."""
    a_token = PAGE // 4 * 2
    kinds = (LayerGroup("full", 1, a_token), LayerGroup("sliding", 1, a_token, window=window))
    geometry = Geometry(1_000, 3, 400, layer_groups=kinds, pool_bytes=pages * PAGE)
    return Virtual.of(geometry, **{"page_size": "64KiB", **knobs})


def step(allocator, row):
    """Let one sequence grow by a token; return what its step maps and unmaps, before and beside."""
    assert allocator.grow(np.array([row])).is_empty
    before, beside = allocator.begin_step()
    return [grant.tolist() for grant in (before.maps, before.unmaps, beside.maps, beside.unmaps)]


@pytest.mark.parametrize(
    ("model", "page_size", "layout", "tokens", "pages"),
    [
        # 8 KV heads of 64, 12 full and 12 sliding layers: 1 KiB a token in a tensor
        ("gpt-oss-20b", "64KiB", "per_layer", [64, 64], [24, 24]),
        ("gpt-oss-20b", "2MiB", "per_layer", [2_048, 2_048], [24, 24]),
        ("gpt-oss-20b", "2MiB", "sliced", [170, 170], [2, 2]),
        # 16 of 128, 10 full and 52 sliding layers: 4 KiB
        ("gemma-3-27b", "64KiB", "per_layer", [16, 16], [20, 104]),
        ("gemma-3-27b", "2MiB", "sliced", [51, 9], [2, 2]),
    ],
)
def test_what_a_page_group_of_each_layer_group_is(model, page_size, layout, tokens, pages):
    layers, a_tensor, window = {
        "gpt-oss-20b": ((12, 12), 1 << 10, 128), "gemma-3-27b": ((10, 52), 4 << 10, 1_024),
    }[model]  # fmt: skip
    full, sliding = (2 * count * a_tensor for count in layers)
    kinds = (
        LayerGroup("full", layers[0], full),
        LayerGroup("sliding", layers[1], sliding, window=window),
    )
    geometry = Geometry(1_000, 2, 4_096, layer_groups=kinds, pool_bytes=8 << 30)
    allocator = Virtual.of(geometry, page_size=page_size, layout=layout)
    shapes = allocator.tables.shapes.tables
    assert [shape.page_tokens for shape in shapes] == tokens
    assert allocator.driver.of_group.tolist() == pages
    allocator.admit(np.array([1]), Prompt(100), Demand(100, 4))
    before = allocator.begin_step().before
    groups = [-(-100 // t) for t in tokens]
    calls = sum(n * of for n, of in zip(groups, pages, strict=True))
    assert allocator.driver_calls(before.maps) == {allocator.page_bytes: calls}
    assert np.bincount(before.maps[:, 3]).tolist() == groups


def test_latent_and_state_have_one_tensor_a_layer():
    kinds = (LayerGroup("latent", 3, 3 * 1_152), LayerGroup("state", 4, 4 * 100_000))
    geometry = Geometry(1_000, 2, 512, layer_groups=kinds, pool_bytes=1 << 30)
    allocator = Virtual.of(geometry, page_size="64KiB")
    assert allocator.tables.shapes.tables[0].page_tokens == 65_536 // 1_152 == 56
    assert allocator.driver.of_group.tolist() == [3, 4 * 2]  # a state of a layer takes two pages


def test_what_is_behind_a_window_is_unmapped_only_where_a_step_lacks_pages():
    allocator = windowed(pages=18, background=False)
    allocator.admit(np.array([0]), Prompt(8), Demand(8, 60))
    assert len(allocator.begin_step().before.maps) == 4  # 2 page-groups of each: 8 pages
    steps = {length: step(allocator, 0) for length in range(9, 25)}
    mapped = {length: [row[1] for row in maps] for length, (maps, *_) in steps.items() if maps}
    assert mapped == {9: [2, 2], 13: [3, 3], 17: [4, 4], 21: [5, 5]}
    # 9 page-groups fit.  Token 17 reads from position 9 on, so page-groups 0 and 1 lie behind.
    unmapped = {
        length: [(row[1], row[3]) for row in gone]
        for length, (_, gone, *_) in steps.items()
        if gone
    }
    assert unmapped == {17: [(1, 1), (0, 1)], 21: [(2, 1)]}
    assert allocator.grow(np.array([0])) is None  # token 25 needs 7 of one and 3 of the other


@pytest.mark.parametrize(("background", "quiet"), [(True, 64 - 9 - 40), (False, 64 - 40)])
def test_quiet_steps_end_where_a_thread_would_map_ahead(background, quiet):
    kinds = (LayerGroup("full", 1, PAGE // 32), LayerGroup("sliding", 1, PAGE // 32, window=128))
    geometry = Geometry(1_000, 3, 400, layer_groups=kinds, pool_bytes=50 * PAGE)
    allocator = Virtual.of(geometry, page_size="64KiB", background=background)
    row = np.array([1])
    allocator.admit(row, Prompt(40), Demand(40, 60))
    allocator.begin_step()
    assert allocator.quiet_steps(row, 1_000) == quiet
    assert allocator.grow(row, quiet).is_empty
    before, beside = allocator.begin_step()
    assert before.is_empty
    assert beside.is_empty
    allocator.grow(row)
    before, beside = allocator.begin_step()
    assert not (before.is_empty and beside.is_empty)


def test_a_quiet_step_leaves_nothing_behind_a_window():
    """What falls behind is available from then on, and may let in a sequence that waits."""
    kinds = (LayerGroup("sliding", 1, PAGE // 32, window=70),)
    geometry = Geometry(1_000, 3, 400, layer_groups=kinds, pool_bytes=50 * PAGE)
    allocator = Virtual.of(geometry, page_size="64KiB", background=False)
    row = np.array([1])
    allocator.admit(row, Prompt(129), Demand(129, 60))
    allocator.begin_step()
    # The token at position 133 reads from 64 on: then the first page-group of 64 lies behind.
    assert allocator.quiet_steps(row, 1_000) == 133 - 129
    free = allocator.available
    allocator.grow(row, 4)
    assert allocator.available == free
    allocator.begin_step()
    allocator.grow(row)
    assert allocator.available == free + 2


def test_until_then_it_is_expired():
    allocator = windowed(background=False)
    allocator.admit(np.array([0]), Prompt(8), Demand(8, 60))
    allocator.begin_step()
    for _ in range(12):
        step(allocator, 0)
    a_slot = PAGE // 2
    usage = allocator.usage(np.array([0]), np.array([67]))
    # 20 tokens, of which the sliding layer's last reads 8: from position 12 on.
    assert usage.token[0] == (20 + 8) * a_slot
    assert usage.expired[0] == 12 * a_slot
    assert usage.reserved[0] == usage.internal[0] == 0
    assert allocator.balance() == (20, 0, 180)


def test_what_is_mapped_ahead_is_reserved_whoever_shares_what():
    allocator = windowed()
    for row in (0, 1):
        allocator.admit(np.array([row]), Prompt(6), Demand(6, 60))
    allocator.begin_step()
    rows, finals = np.arange(3), np.array([66, 6, 6])
    # Each has 6 tokens in two page-groups of 4 of each layer group, and a third mapped ahead.
    for live in (rows[:2], rows):
        usage = allocator.usage(live, finals[live])
        assert usage.reserved[0] == 2 * (3 * 4 - 6) * PAGE // 2
        if len(live) == 2:
            allocator.fork(1, rows[2:], Demand(6, 1))
            assert allocator.tables.is_shared


def test_a_thread_maps_the_next_tokens_page_groups_beside_the_step():
    allocator = windowed()
    allocator.admit(np.array([0]), Prompt(8), Demand(8, 60))
    before, beside = allocator.begin_step()
    assert len(before.maps) == 4
    assert [row[1] for row in beside.maps.tolist()] == [2, 2]
    assert step(allocator, 0) == [[], [], [[0, 3, *beside_of(allocator, 3, 0)],
                                           [0, 3, *beside_of(allocator, 3, 1)]], []]  # fmt: skip


def beside_of(allocator, column, table):
    """Return the page-group that a column of range 0 has, and the layer group."""
    return int(allocator.tables.table[table][0, column]), table


def test_without_deferral_a_thread_unmaps_one_page_group_a_step():
    allocator = windowed(deferred=False)
    allocator.admit(np.array([0]), Prompt(8), Demand(8, 60))
    allocator.begin_step()
    gone = [row for _ in range(24) for row in step(allocator, 0)[3]]
    # The last of 32 tokens reads from position 24 on: page-groups 0 to 5 of the sliding layer.
    assert [(row[1], row[3]) for row in gone] == [(column, 1) for column in range(6)]


def test_an_ended_sequence_leaves_what_begins_a_range_to_the_next():
    allocator = windowed(background=False, pages=40)
    allocator.admit(np.array([0]), Prompt(30), Demand(30, 60))
    allocator.begin_step()
    assert allocator.release(np.array([0])).is_empty
    assert allocator.balance() == (0, 32, 8)
    allocator.admit(np.array([0]), Prompt(12), Demand(12, 10))
    assert not len(allocator.begin_step().before.maps)


@pytest.mark.parametrize(
    ("knobs", "error", "text"),
    [
        ({"page_size": "1GiB"}, ValueError, "page_size must be one of 64KiB"),
        ({"rules": "new"}, ValueError, "rules must be one of"),
        ({"eager": True}, ValueError, "eager needs rules=paper"),
        ({"deferred": 1}, ValueError, "deferred must be true or false"),
        ({"rules": "paper"}, Unsupported, "rules=paper is not for models with layer groups"),
        ({"admission": "vattention"}, Unsupported, "counts page-groups of one size"),
        ({"sharing": "copy"}, Unsupported, "a fork maps what it shares"),
        ({"prefix_index": "hash"}, Unsupported, "windows have unmapped what a hit would need"),
    ],
)
def test_a_knob_that_it_does_not_have_is_one_line(knobs, error, text):
    with pytest.raises(error, match=text):
        windowed(**knobs)


def test_a_page_below_a_token_is_a_reason():
    kinds = (LayerGroup("full", 1, 4 * PAGE), LayerGroup("sliding", 1, 4, window=4))
    geometry = Geometry(100, 2, 40, layer_groups=kinds, pool_bytes=100 * PAGE)
    with pytest.raises(Unsupported, match="less than one token's KV of the 1 full layers"):
        Virtual.of(geometry, page_size="64KiB")
