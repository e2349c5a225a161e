"""Page-groups of the virtual allocator against the figures of the vAttention paper."""

from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Demand, Geometry, NeverFits, Prompt, Unsupported
from allocators.virtual import PAGE_BYTES, Virtual, page_group_tokens
from tests.allocators.virtual.small_pool import grow, pool

#: (KV heads, layers); head dimension 128, two bytes a value
MODELS = {"yi-6b": (4, 32), "llama-3-8b": (8, 32), "yi-34b": (8, 60)}
COLUMNS = [
    ("64KiB", "per_layer"), ("128KiB", "per_layer"), ("256KiB", "per_layer"),
    ("2MiB", "per_layer"), ("2MiB", "sliced"),
]  # fmt: skip
TOKENS_A_PAGE_GROUP = {
    ("yi-6b", 1): (64, 128, 256, 2048, 64),
    ("llama-3-8b", 1): (32, 64, 128, 1024, 32),
    ("llama-3-8b", 2): (64, 128, 256, 2048, 64),
    ("yi-34b", 1): (32, 64, 128, 1024, 17),
    ("yi-34b", 2): (64, 128, 256, 2048, 34),
}


def geometry(model: str, ranks: int, capacity_tokens: int = 1 << 16) -> Geometry:
    kv_heads, layers = MODELS[model]
    return Geometry(
        capacity_tokens=capacity_tokens, max_seqs=8, max_len=4096, layers=layers,
        kv_heads=kv_heads // ranks, head_dim=128, ranks=ranks,
    )  # fmt: skip


@pytest.mark.parametrize(("model", "ranks"), TOKENS_A_PAGE_GROUP)
def test_tokens_a_page_group_are_those_of_the_published_table(model, ranks):
    shape = geometry(model, ranks)
    found = [page_group_tokens(shape, PAGE_BYTES[size], layout) for size, layout in COLUMNS]
    assert tuple(found) == TOKENS_A_PAGE_GROUP[model, ranks]
    built = [Virtual(shape, page_size=size, layout=layout) for size, layout in COLUMNS]
    assert tuple(a.geometry.page_tokens for a in built) == TOKENS_A_PAGE_GROUP[model, ranks]


@pytest.mark.parametrize(("model", "ranks"), TOKENS_A_PAGE_GROUP)
@pytest.mark.parametrize("page_size", PAGE_BYTES)
def test_a_request_wastes_less_than_two_pages_a_layer_and_rank(model, ranks, page_size):
    shape = geometry(model, ranks)
    allocator = Virtual(shape, page_size=page_size, background=False)
    worst = 2 * shape.layers * PAGE_BYTES[page_size] * ranks
    assert allocator.shape.page_group_bytes == worst
    for tokens in (1, allocator.geometry.page_tokens, allocator.geometry.page_tokens + 1):
        rows = np.array([0])
        allocator.admit(rows, Prompt(tokens), Demand(tokens, 1))
        allocator.begin_step()
        usage = allocator.usage(rows, np.array([tokens]))
        assert 0 <= usage.internal[0] < worst
        allocator.release(rows)


def test_worst_case_waste_spans_the_published_range():
    def worst_mib(page_size):
        shapes = [geometry(*key) for key in TOKENS_A_PAGE_GROUP]
        return [Virtual(s, page_size=page_size).shape.page_group_bytes / (1 << 20) for s in shapes]

    assert (min(worst_mib("64KiB")), max(worst_mib("64KiB"))) == (4, 15)
    assert (min(worst_mib("256KiB")), max(worst_mib("256KiB"))) == (16, 60)


def admit_group(allocator, rows, tokens, private=0):
    demand = Demand(tokens, private + 20, private)
    return allocator.admit(np.array(rows), Prompt(tokens), demand)


def test_an_aliased_group_maps_one_prompt_and_copies_only_the_page_being_written():
    allocator = pool()
    grant = admit_group(allocator, [0, 1, 2], 20)
    assert len(grant.maps) == 9
    assert allocator.balance() == (3, 0, 17)
    grant = grow(allocator, 0, 1, 2)
    assert grant.copies[:, 2].tolist() == [4, 4]
    assert allocator.balance() == (5, 0, 15)


def test_a_copied_group_shares_nothing():
    allocator = pool(sharing="copy")
    grant = admit_group(allocator, [0, 1, 2], 20)
    assert int(grant.copies[:, 2].sum()) == 2 * 24
    assert allocator.balance() == (9, 0, 11)


def test_a_group_that_diverged_copies_from_where_the_prompt_is_written():
    """Regression: the parent gave its partly filled page-group away before it was written."""
    allocator = pool()
    grant = admit_group(allocator, [0, 1, 2], 20, private=3)
    tail = int(allocator.addresses(0)[16])
    assert grant.copies[:, 0].tolist() == [tail, tail]
    # Regression: the tail was mapped, unmapped and replaced by one grant.
    assert not len(grant.unmaps)
    assert len({(vrange, vpage) for vrange, vpage, _ in grant.maps.tolist()}) == len(grant.maps)


def test_a_page_too_small_for_a_token_is_unsupported():
    shape = Geometry(capacity_tokens=100, max_seqs=1, max_len=10, kv_heads=64, head_dim=1024)
    with pytest.raises(Unsupported, match="64KiB page"):
        Virtual(shape, page_size="64KiB")


def test_a_pool_without_one_page_group_never_fits():
    with pytest.raises(NeverFits, match="holds no page-group"):
        Virtual(replace(geometry("yi-6b", 1), capacity_tokens=63), page_size="64KiB")


# -- the last page-group of a range: OPT-13B, 204.8 tokens a page of 2 MiB -------------------------
OPT_13B = Geometry(
    capacity_tokens=30_000, max_seqs=4, max_len=2048, layers=40, kv_heads=40, head_dim=128
)
WHOLE = 10 * 204  # tokens that lie whole in the ten page-groups' own slots


def full_ranges(sharing: str, rows: int = 1, tokens: int = 2048) -> Virtual:
    allocator = Virtual(OPT_13B, sharing=sharing)
    allocator.admit(np.arange(rows), Prompt(tokens), Demand(tokens, 1))
    allocator.begin_step()
    return allocator


@pytest.mark.parametrize(("sharing", "page_groups"), [("copy", 10), ("alias", 11)])
def test_dense_pages_are_filled_to_the_last_byte_and_padded_ones_shared(sharing, page_groups):
    allocator = full_ranges(sharing)
    assert allocator.range_pages == allocator.pages.count[0] == page_groups
    for _ in range(3):
        assert allocator.begin_step().beside.is_empty
    assert allocator.pages.count[0] == page_groups


def test_tokens_behind_the_whole_ones_have_slots_of_their_own():
    allocator = full_ranges("copy", rows=2)
    behind_the_pool = allocator.pages.num_pages * 204
    for row in (0, 1):
        slots = allocator.addresses(row)
        vrange = int(allocator.range_of[row])
        assert len(np.unique(slots)) == 2048
        assert (slots[:WHOLE] < behind_the_pool).all()
        assert slots[WHOLE:].tolist() == [behind_the_pool + 8 * vrange + i for i in range(8)]
    assert not len(np.intersect1d(allocator.addresses(0), allocator.addresses(1)))
    assert allocator.layout(np.array([1])).base[0] == 2048 * allocator.range_of[1]


@pytest.mark.parametrize(("tokens", "tail"), [(2048, 8), (2043, 3), (WHOLE, 0), (2000, 0)])
def test_a_copied_range_is_copied_with_its_tail(tokens, tail):
    allocator = full_ranges("copy", tokens=tokens)
    grant = allocator.fork(0, np.array([1]), Demand(tokens, 1))
    assert len(grant.maps) == 10
    written = {
        to + i: source + i for source, to, n in grant.copies.tolist() for i in range(n)
    }  # fmt: skip
    slots, copied = allocator.addresses(0).tolist(), allocator.addresses(1).tolist()
    assert [written[slot] for slot in copied] == slots
    assert grant.copies[10:, 2].tolist() == [tail] * (tail > 0)


@pytest.mark.parametrize("tokens", [2048, 2044, WHOLE, 2000])
def test_a_full_dense_range_wastes_nothing(tokens):
    allocator = full_ranges("copy", tokens=tokens)
    rows, finals = np.array([0]), np.array([2048])
    usage = allocator.usage(rows, finals)
    assert allocator.pages.count[0] == 10
    assert usage.token[0] + usage.reserved[0] == 10 * 2 * 40 * (2 << 20)
    assert usage.token[0] == tokens * OPT_13B.bytes_per_token
    assert usage.internal[0] == 0
    # One that ends before it is full wastes what it will not write.
    usage = allocator.usage(rows, np.maximum(tokens, [2045]))
    assert usage.internal[0] == (2048 - max(tokens, 2045)) * OPT_13B.bytes_per_token


def test_a_quiet_window_accounts_for_tokens_behind_the_whole_ones_step_by_step():
    single, at_once = (full_ranges("copy", tokens=2030) for _ in range(2))
    rows, finals = np.array([0]), np.array([2046])
    at_once.grow(rows, 14)
    usage = at_once.usage(rows, finals, steps=14)
    for step in range(14):
        single.grow(rows)
        alone = single.usage(rows, finals)
        assert usage.token[step] == alone.token[0]
        assert usage.reserved[step] == alone.reserved[0]
        assert usage.internal[step] == alone.internal[0] == 2 * OPT_13B.bytes_per_token


def test_tokens_behind_the_whole_ones_are_not_moved_to_the_host():
    shape = replace(OPT_13B, host_tokens=10_000)
    for tokens, moves in ((WHOLE, True), (WHOLE + 1, False)):
        allocator = Virtual(shape, sharing="copy")
        allocator.admit(np.array([0]), Prompt(tokens), Demand(tokens, 1))
        allocator.begin_step()
        assert (allocator.suspend(np.array([0]), ticket=7) is not None) == moves
