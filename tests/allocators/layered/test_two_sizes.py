"""Pages of two sizes out of one pool: chunks, what is promised, what converting takes."""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, NeverFits, Prompt, Unsupported
from allocators.layered.chunks import Chunks
from allocators.layers import LayerGroup
from allocators.virtual import Virtual
from harness.cost.grants import GrantPrices
from harness.cost.spec import SMALL_CREATE_US, SMALL_CREATE_US_RANGE, CostSpec

KIB = 1 << 10
PAGE, CHUNK = 64 * KIB, 256 * KIB
#: of 4 tokens a chunk, one chunk a page-group; and of 2 tokens a small page, two a page-group
LATENT = LayerGroup("latent", 1, PAGE)
WINDOW = LayerGroup("sliding", 1, PAGE, window=50)
STATE = LayerGroup("state", 1, PAGE)


# -- chunks ------------------------------------------------------------------------------------
def test_the_fullest_chunk_is_filled_first():
    chunks = Chunks(3, 4)
    pages = chunks.take_small(9)
    assert pages.tolist() == list(range(9))
    chunks.give_small(np.array([1, 2, 3, 5]))  # 1 of chunk 0 in use, 3 of chunk 1, 1 of chunk 2
    assert chunks.take_small(2).tolist() == [5, 1]
    chunks.check(np.zeros(0, dtype=np.int64), np.array([0, 1, 4, 5, 6, 7, 8]))


def test_a_chunk_is_divided_and_made_whole_only_where_pages_lack():
    chunks = Chunks(2, 4)
    first = chunks.take_small(3)
    assert chunks.converted == [(0, 1, 4)]
    chunks.give_small(first)
    assert chunks.fits(2, 0), "an empty chunk is room for a large page"
    assert chunks.take(1).tolist() == [1], "one that is whole is taken first"
    assert chunks.converted == [(0, 1, 4)]
    assert not chunks.fits(1, 1)
    assert chunks.take(1).tolist() == [0]
    assert chunks.converted == [(0, 1, 4), (0, 4, 1)]
    chunks.check(np.array([0, 1]), np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize(
    ("large", "small", "fits"),
    [(0, 10, True), (0, 11, False), (1, 6, True), (1, 7, False), (2, 2, True), (3, 0, False)],
)
def test_what_fits_into_free_chunks_and_the_holes_of_others(large, small, fits):
    chunks = Chunks(3, 4)
    chunks.take_small(2)  # 2 free in chunk 0, 8 in the others
    assert chunks.fits(large, small) is fits


# -- what is promised --------------------------------------------------------------------------
def pool(chunks, *kinds, rest=0, **knobs):
    geometry = Geometry(1_000, 8, 100, layer_groups=kinds, pool_bytes=chunks * CHUNK + rest)
    knobs = {"page_size": "256KiB", "window_page_size": "64KiB", "background": False} | knobs
    return Virtual.of(geometry, **knobs)


def start(allocator, row, tokens):
    rows = np.atleast_1d(row)
    assert allocator.admit(rows, Prompt(tokens), Demand(tokens, 20)) is not None
    return end(allocator)


def end(allocator):
    grants = allocator.begin_step()
    allocator.check()
    return grants.before


def test_free_parts_of_a_chunk_in_use_are_no_room_for_a_large_page():
    allocator = pool(3, LATENT, STATE)
    start(allocator, 0, 4)  # a chunk, and a part of another
    assert allocator.balance() == (5, 0, 7)  # in small pages
    assert allocator.available == 1
    assert allocator.admit(np.array([1]), Prompt(8), Demand(8, 1)) is None
    assert allocator.headroom(np.array([0])) == 4
    start(allocator, 1, 4)  # its state lies beside that of the other
    assert allocator.balance() == (10, 0, 2)
    assert allocator.available == 0
    # Parts are free for a third one's state, and nothing for its latents.
    assert allocator.admit(np.array([2]), Prompt(1), Demand(1, 1)) is None


def test_what_an_ended_sequence_leaves_is_made_whole_for_others():
    allocator = pool(3, LATENT, STATE)
    start(allocator, 0, 4)
    assert allocator.release(np.array([0])).is_empty
    assert allocator.balance() == (0, 5, 7)
    before = start(allocator, 1, 8)
    assert before.converted.tolist() == [], "two whole chunks, and parts of the divided one"
    assert allocator.release(np.array([1])).is_empty
    with pytest.raises(NeverFits, match="3 pages of 262144 bytes and 1 of 65536 are needed"):
        allocator.admit(np.array([1]), Prompt(12), Demand(12, 1))


def one_chunk_of_leftovers():
    """Return a pool of 7 chunks; in one lie three states of idle ranges, in one row 0's."""
    allocator = pool(7, LATENT, STATE)
    for row in (1, 2, 3, 5, 0):
        start(allocator, row, 1)
    tables = allocator.tables
    for row in (1, 2, 3, 5):
        allocator.release(np.array([row]))
        tables.cut(row, np.array([0, int(row != 5)]))
    assert allocator.driver.chunks.left.tolist() == [0, 1, 0, 0, 0, 0, 3]
    assert allocator.available == 7 - 2
    return allocator


def test_what_is_taken_early_leaves_what_was_promised_to_others():
    """A free part is not taken of a chunk that is to be made whole."""
    allocator = one_chunk_of_leftovers()
    tables = allocator.tables
    assert allocator.grow(np.array([0]), 16).is_empty  # four chunks are promised
    # Of a group the first sequence's page-groups are mapped at once.
    grant = allocator.admit(np.array([4, 6]), Prompt(1), Demand(1, 2))
    assert sorted(grant.unmaps[:, 0].tolist()) == [1, 2, 3]
    state = tables.table[1][4, 0]
    assert allocator.driver.chunks_of(1, np.array([state])).tolist() == [6]
    assert allocator.available == 0
    assert end(allocator).converted.tolist() == [[1, PAGE, CHUNK]]


def test_what_is_taken_early_leaves_what_the_same_call_needs():
    allocator = one_chunk_of_leftovers()
    assert allocator.grow(np.array([0]), 4).is_empty  # one chunk is promised, four are needed next
    grant = allocator.admit(np.array([4, 6]), Prompt(1), Demand(1, 9, private_tokens=4))
    assert sorted(grant.unmaps[:, 0].tolist()) == [1, 2, 3]
    assert allocator.available == 0
    end(allocator)
    assert allocator.driver.chunks.left.tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_pages_mapped_ahead_are_mapped_elsewhere_where_they_pin_a_chunk():
    one_token = LayerGroup("latent", 1, CHUNK)
    four_tokens = LayerGroup("sliding", 1, PAGE // 2, window=50)
    allocator = pool(9, one_token, four_tokens)
    start(allocator, 0, 4)
    start(allocator, 1, 1)  # its two parts fill the chunk that has the other's
    first = np.array([0])
    assert allocator.grow(first).is_empty
    assert len(end(allocator).converted) == 1
    allocator.truncate(0, 1)  # what it does not need now stays mapped
    allocator.release(np.array([1]))
    allocator.tables.clear(1)
    assert np.count_nonzero(allocator.driver.chunks.left == 2) == 2
    assert allocator.headroom(first) == 4
    grant = allocator.grow(first, 4)
    assert [(row[1], row[3]) for row in grant.unmaps.tolist()] == [(1, 1)]
    before = end(allocator)
    assert before.converted[:, 1:].tolist() == [[PAGE, CHUNK]]
    assert allocator.balance() == (36, 0, 0)


@pytest.mark.parametrize("sizes", [{}, {"page_size": "64KiB"}])
def test_rows_that_do_not_all_fit_are_served_from_the_first_on(sizes):
    """As a scheduler does it: of what is refused together it asks `leading`, else tries less."""
    allocator = pool(6, LATENT, STATE, rest=PAGE, **sizes)
    start(allocator, 0, 4)
    start(allocator, 1, 4)
    both = np.array([0, 1])
    while allocator.grow(both) is not None:
        end(allocator)
    assert allocator.leading(both) is None
    assert allocator.grow(both[:1]) is not None, "a page of latents is left"
    end(allocator)


def test_a_roll_back_or_quiet_step_converts_nothing():
    allocator = pool(20, LATENT, WINDOW)
    start(allocator, 0, 5)
    before = allocator.driver.chunks.divided.copy()
    allocator.truncate(0, 3)
    end(allocator)
    assert allocator.quiet_steps(np.array([0]), 9) == 4  # three page-groups of two tokens
    assert allocator.grow(np.array([0]), 4).is_empty
    assert end(allocator).is_empty
    assert (allocator.driver.chunks.divided == before).all()


# -- sizes -------------------------------------------------------------------------------------
def gemma(**knobs):
    """10 full layers and 52 with a window, 16 KV heads of 128: 4 KiB a token in a tensor."""
    kinds = (
        LayerGroup("full", 10, 20 * 4 * KIB),
        LayerGroup("sliding", 52, 104 * 4 * KIB, window=1_024),
    )
    geometry = Geometry(1_000, 2, 4_096, layer_groups=kinds, pool_bytes=8 << 30)
    return Virtual.of(geometry, **knobs)


def test_each_layer_group_has_pages_of_its_size():
    allocator = gemma(window_page_size="64KiB", background=False)
    assert [shape.page_tokens for shape in allocator.tables.shapes.tables] == [512, 16]
    before = start(allocator, 0, 1_000)
    # 2 page-groups of 20 pages; 63 of 104, which fill the parts of 6,552 / 32 chunks.
    assert allocator.driver_calls(before.maps) == {2 << 20: 40, 64 * KIB: 6_552}
    assert before.converted[:, 1:].tolist() == [[2 << 20, 64 * KIB]] * 205
    assert allocator.balance() == (40 * 32 + 6_552, 0, 4_096 * 32 - 40 * 32 - 6_552)
    usage = allocator.usage(np.array([0]), np.array([1_000]))
    assert int(usage.internal[0]) == 24 * 20 * 4 * KIB + 8 * 104 * 4 * KIB
    assert int(usage.free[0]) == (8 << 30) - 40 * (2 << 20) - 6_552 * 64 * KIB


@pytest.mark.parametrize("size", ["64KiB", "2MiB"])
def test_the_same_size_twice_is_one_size(size):
    one, same = gemma(page_size=size), gemma(page_size=size, window_page_size=size)
    rows = np.array([0])
    for allocator in (one, same):
        assert not allocator.driver.two_sizes
    for _ in range(3):
        grants = [of.admit(rows, Prompt(900), Demand(900, 9)) for of in (one, same)]
        steps = [of.begin_step() for of in (one, same)]
        assert [g.maps.tolist() for g in grants] == [[], []]
        assert steps[0].before.maps.tolist() == steps[1].before.maps.tolist()
        assert one.balance() == same.balance()
        for allocator in (one, same):
            allocator.release(rows)


def test_what_is_below_a_chunk_at_the_end_of_the_pool_is_free():
    allocator = pool(3, LATENT, STATE, rest=3 * PAGE)
    assert allocator.balance() == (0, 0, 12)
    usage = allocator.usage(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert int(usage.free[0]) == 3 * CHUNK + 3 * PAGE


# -- what it takes -----------------------------------------------------------------------------
def test_a_conversion_releases_the_old_pages_and_creates_the_new():
    prices = GrantPrices(CostSpec(), 1, 1e12, 0.0)
    allocator = gemma(window_page_size="64KiB", background=False)
    before = start(allocator, 0, 1_000)
    maps_s = 40 * 40e-6 + 6_552 * 9e-6
    divided_s = 205 * (23e-6 + 32 * SMALL_CREATE_US * 1e-6)
    priced = prices.grant(before, allocator)
    assert priced.maps_s == priced.seconds == pytest.approx(maps_s + divided_s)
    low, high = SMALL_CREATE_US_RANGE
    assert pytest.approx((low * high) ** 0.5, rel=0.1) == SMALL_CREATE_US


@pytest.mark.parametrize(
    ("knobs", "error", "text"),
    [
        ({"window_page_size": "1GiB"}, ValueError, "window_page_size must be null or one of 64KiB"),
        ({"window_page_size": 64}, ValueError, "window_page_size must be null or one of 64KiB"),
        ({"window_page_size": "64KiB", "layout": "per_layer"}, Unsupported, "a 64KiB page .per_l"),
    ],
)
def test_a_value_that_it_does_not_have_is_one_line(knobs, error, text):
    large = LayerGroup("sliding", 1, 4 * PAGE, window=5)
    with pytest.raises(error, match=text):
        pool(9, LATENT, large, **knobs)


def test_a_uniform_model_checks_the_value_and_ignores_it():
    uniform = Geometry(1_000, 8, 100, layers=2, kv_heads=8, head_dim=512)
    kept = [Virtual.of(uniform, page_size="64KiB", window_page_size=of) for of in (None, "2MiB")]
    assert kept[0].shape == kept[1].shape
    with pytest.raises(ValueError, match="window_page_size must be null or one of"):
        Virtual.of(uniform, window_page_size="3MiB")
