"""The roofline: exact skipping, monotonicity, and times that physics allows."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.base import EMPTY_GRANT, Geometry, Grant
from harness.cost import (
    CostError,
    CostSpec,
    HardwareSpec,
    ModelShape,
    Roofline,
    SoftwareSpec,
    Work,
    kv_bytes_per_token,
    weight_bytes,
)
from harness.cost.spec import SMALL_MAP_US, SMALL_MAP_US_RANGE
from tests.cost.parts import roofline_parts
from tests.cost.steps import Pool, decode, prefill, step_by_step_s
from tests.places import shipped

SOFTWARE = {item.name for item in fields(SoftwareSpec)} - {"name"}


def roofline(model="llama-3-8b", hardware="a100-80gb", count=1, **cost):
    shape = shipped(ModelShape, "model", model)
    spec = shipped(HardwareSpec, "hardware", hardware)
    ours = {name: cost.pop(name) for name in SOFTWARE & cost.keys()}
    return Roofline(
        shape,
        replace(spec, count=count),
        replace(CostSpec(), **cost),
        replace(SoftwareSpec(), **ours),
    )


ROOFLINES = [
    roofline(),
    roofline("opt-13b", "a100-40gb", paged_decode_slowdown=1.23, sequence_us=31.0, token_us=7.0),
    roofline("llama-2-7b", overlapped=True, step_us=14000.0, sequence_us=11.0),
    roofline("qwen3-30b-a3b", "h100-80gb", count=4, roofline_exponent=2.7),
]
counts = st.integers(0, 300)
tokens = st.integers(0, 10**7)


# -- skipping ahead ----------------------------------------------------------------------------
@given(
    st.sampled_from(ROOFLINES), st.integers(0, 300), tokens, st.integers(0, 40),
    st.one_of(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), min_size=40, max_size=40)),
    st.sampled_from((0, 1, 16, 64, 256)),
)  # fmt: skip
def test_a_window_is_bitwise_its_single_steps(roof, seqs, context, steps, sent, block_tokens):
    table_bytes = np.array(sent[:steps], dtype=np.int64) if isinstance(sent, list) else sent
    window = roof.decode_window_s(seqs, context, steps, table_bytes, block_tokens)
    single = step_by_step_s(roof, seqs, context, steps, table_bytes, block_tokens)
    assert window.shape == (steps,)
    assert window.tobytes() == single.tobytes()


def test_a_window_may_be_cut_anywhere():
    roof = ROOFLINES[0]
    whole = roof.decode_window_s(7, 3000, 100, 512, 16)
    parts = [roof.decode_window_s(7, 3000, 33, 512, 16)]
    parts.append(roof.decode_window_s(7, 3000 + 33 * 7, 67, 512, 16))
    assert np.array_equal(whole, np.concatenate(parts))


# -- more work is never faster -----------------------------------------------------------------
@given(st.sampled_from(ROOFLINES), counts, tokens, counts, st.integers(0, 10**6))
def test_more_decoding_is_never_faster(roof, seqs, context, extra, more):
    less = roof.step_s(decode(seqs, context))
    assert roof.step_s(decode(seqs + extra, context + more)) >= less


@given(
    st.sampled_from(ROOFLINES), st.lists(st.integers(1, 4000), min_size=1, max_size=5),
    st.integers(0, 10**5), st.integers(0, 2000),
)  # fmt: skip
def test_more_prompt_is_never_faster(roof, new, past, extra):
    pasts = [past] * len(new)
    less = roof.step_s(prefill(new, pasts))
    assert roof.step_s(prefill([new[0] + extra, *new[1:]], pasts)) >= less
    assert roof.step_s(prefill(new, [past + extra] * len(new))) >= less
    assert roof.step_s(prefill([*new, 1], [*pasts, 0])) >= less


@given(st.sampled_from(ROOFLINES), counts, tokens, st.lists(st.integers(0, 3000), max_size=4))
def test_the_parts_sum_to_the_step(roof, seqs, context, new):
    work = prefill(new)
    work.decode_seqs, work.decode_context_tokens = seqs, context if seqs else 0
    work.sampled, work.table_bytes = seqs, 100 * seqs
    parts = roofline_parts(roof, work)
    cpu_s = parts.pop("software", 0.0)
    gpu_s = sum(parts.values())
    step_s = max(gpu_s, cpu_s) if roof.software.spec.overlapped else gpu_s + cpu_s
    assert step_s == pytest.approx(roof.step_s(work), rel=1e-12)


def test_a_step_without_tokens_takes_no_time():
    assert ROOFLINES[0].step_s(Work()) == 0.0


# -- sane magnitudes ---------------------------------------------------------------------------
def test_a_small_decode_batch_takes_the_reading_of_the_weights():
    roof = roofline("opt-13b", "a100-40gb")
    reading_s = weight_bytes(roof.model) / 1555e9  # 16.5 ms at the vendor's bandwidth
    step_s = roof.step_s(decode(7, 7 * 500))
    assert reading_s < step_s < 2 * reading_s


def test_nothing_beats_the_hardware():
    for roof in ROOFLINES:
        context = 5_000_000
        kv_s = context * kv_bytes_per_token(roof.model, roof.ranks) / roof.ranks / roof.byte_s
        assert roof.step_s(decode(200, context)) > kv_s
        flops = 2 * 8192 * roof.model.layers * roof.model.hidden**2  # less than there is
        assert roof.step_s(prefill([8192])) > flops / roof.ranks / roof.flop_s


def test_a_prompt_in_chunks_costs_more_than_at_once():
    roof = roofline()
    chunks = [roof.step_s(prefill([512], [past])) for past in range(0, 4096, 512)]
    assert sum(chunks) > roof.step_s(prefill([4096]))


def test_tensor_parallelism_is_faster_but_not_by_the_full_factor():
    one, four = (roofline("llama-3-70b", "h100-80gb", count=n) for n in (1, 4))
    work = prefill([4096], sampled=1)
    assert one.step_s(work) / 4 < four.step_s(work) < one.step_s(work)
    assert roofline_parts(one, work)["all_reduce"] == 0 < roofline_parts(four, work)["all_reduce"]


def test_a_mixture_reads_only_the_experts_it_visits():
    roof = roofline("qwen3-30b-a3b", "h100-80gb")
    linear = [roofline_parts(roof, decode(n, n))["linear"] for n in (1, 16, 400)]
    assert linear[0] < linear[1] / 4
    dense_s = weight_bytes(roof.model) / (roof.byte_s * roof.cost.weight_bandwidth_efficiency)
    assert linear[2] == pytest.approx(dense_s, rel=0.15)


def test_only_sampled_rows_pass_the_output_head():
    roof = roofline()
    work = prefill([2048])
    plain = roof.step_s(work)
    work.sampled = 1
    head_s = roof.model.vocab * roof.model.hidden * 2 / roof.byte_s
    assert roof.step_s(work) - plain > head_s


def test_slowdowns_and_tables_are_paid_by_paged_steps_only():
    roof = roofline(paged_decode_slowdown=1.25, paged_prefill_slowdown=1.4)
    for work in (decode(64, 64 * 4000), prefill([8192])):
        flat = roof.step_s(work)
        work.block_tokens = 64
        slow = roof.step_s(work)
        assert flat < slow < 1.4 * flat
        work.table_bytes = 10**6
        assert roof.step_s(work) > slow


@pytest.mark.parametrize("work", [decode(64, 64 * 4000), prefill([8192])])
def test_the_smaller_the_blocks_the_slower_the_kernels(work):
    roof = roofline()
    flat = roof.step_s(work)
    seconds = [
        roof.step_s(replace(work, block_tokens=n)) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    ]
    assert seconds[6:] == [flat] * 3  # the constants are those of kernels with 64 tokens a block
    assert seconds[:7] == sorted(seconds[:7], reverse=True)
    assert len(set(seconds[:7])) == 7
    free = roofline(block_decode_tokens=0, block_prefill_tokens=0)
    assert free.step_s(replace(work, block_tokens=1)) == flat


def test_only_what_is_read_through_the_table_pays_for_its_blocks():
    roof = roofline()
    read_s = (
        roofline_parts(roof, decode(64, 64 * 4000))["decode"]
        - roofline_parts(roof, decode(64, 0))["decode"]
    )
    one = roofline_parts(roof, decode(64, 64 * 4000, block_tokens=1))["decode"]
    half = roofline_parts(roof, decode(64, 64 * 4000, block_tokens=2))["decode"]
    assert one - half == pytest.approx(read_s * roof.cost.block_decode_tokens / 2)


def test_the_host_writes_each_entry_of_a_table():
    entries = 10_000
    plain = roofline(table_entry_ns=0).step_s(decode(8, 8, table_bytes=4 * entries))
    written = roofline(table_entry_ns=58).step_s(decode(8, 8, table_bytes=4 * entries))
    assert written - plain == pytest.approx(58e-9 * entries)


# -- grants ------------------------------------------------------------------------------------
def allocator(pages_per_group=120, page_bytes=2 * 2**20, ranks=1):
    shape = Geometry(1000, 8, 1000, layers=60, kv_heads=8 // ranks, head_dim=128, ranks=ranks)
    return Pool(geometry=shape, pages_per_group=pages_per_group, page_bytes=page_bytes)


def rows(n, width=3):
    return np.ones((n, width), dtype=np.int64)


def test_yi_34b_maps_a_page_group_in_about_5_ms():
    # vAttention: 2 x 60 layers = 120 calls, about 5 ms for each request that grows by a page.
    seconds = roofline("yi-34b").grant_s(Grant(maps=rows(1)), allocator())
    assert seconds == pytest.approx(120 * 40e-6)
    assert seconds == pytest.approx(5e-3, rel=0.1)


def test_unmaps_have_their_own_price():
    grant = Grant(unmaps=rows(2), maps=rows(3))
    assert roofline().grant_s(grant, allocator()) == pytest.approx(240 * 34e-6 + 360 * 40e-6)


@pytest.mark.parametrize("kib", [64, 128, 256])
def test_a_small_page_has_a_price_of_its_own_and_its_unmap_calls_no_driver(kib):
    # One ioctl of vAttention's modified driver maps; an unmap only returns the page to a list.
    small = allocator(page_bytes=kib * 1024)
    grant = Grant(maps=rows(1), unmaps=rows(5))
    assert roofline().grant_s(grant, small) == pytest.approx(120 * 9e-6)


def test_both_ends_of_the_price_of_small_pages_can_be_set():
    low, high = SMALL_MAP_US_RANGE
    assert low < SMALL_MAP_US < high == CostSpec().map_us["2MiB"]
    assert pytest.approx((low * high) ** 0.5, rel=0.01) == SMALL_MAP_US
    for end in SMALL_MAP_US_RANGE:
        roof = roofline(map_us=CostSpec().map_us | {"64KiB": end})
        for kib, price_us in ((64, end), (128, SMALL_MAP_US)):
            seconds = roof.grant_s(Grant(maps=rows(1)), allocator(page_bytes=kib * 1024))
            assert seconds == pytest.approx(120 * price_us * 1e-6)


@pytest.mark.parametrize("kib", [512, 4096])
def test_a_page_size_that_is_not_listed_takes_the_price_of_2_mib(kib):
    grant = Grant(maps=rows(1), unmaps=rows(1))
    listed, other = allocator(), allocator(page_bytes=kib * 1024)
    assert roofline().grant_s(grant, other) == roofline().grant_s(grant, listed)


def test_a_copy_reads_and_writes_on_every_rank_at_once():
    copies = np.array([[0, 100, 400], [500, 900, 600]], dtype=np.int64)
    grant = Grant(copies=copies)
    roof = roofline("yi-34b")
    moved = 1000 * 240 * 1024
    expected = 20e-6 + 2 * moved / (2039e9 * roof.cost.copy_bandwidth_efficiency)
    assert roof.grant_s(grant, allocator()) == pytest.approx(expected)
    two = roofline("yi-34b", count=2).grant_s(grant, allocator(ranks=2))
    assert two - 20e-6 == pytest.approx((expected - 20e-6) / 2)


def test_an_empty_grant_is_free():
    assert roofline().grant_s(EMPTY_GRANT, allocator()) == 0.0


# -- bad constants -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("knob", "value"),
    [("gemm_efficiency", 0.0), ("step_us", -1.0), ("sampling_us", float("nan")),
     ("map_us", {}), ("map_us", {"2MiB": 40.0, "2 megabytes": 1.0})],
)  # fmt: skip
def test_a_senseless_constant_is_refused_by_name(knob, value):
    with pytest.raises(
        CostError, match=knob if value != {"2MiB": 40.0, "2 megabytes": 1.0} else "2 meg"
    ):
        roofline(**{knob: value})
