"""The calibrated cost model: exact where measured, monotone between, and exact skipping."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocators.base import EMPTY_GRANT, Geometry, Grant, Unsupported
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import Calibrated, HardwareSpec
from harness.cost.curves import Curve, Surface
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from tests.cost.calibrations import SHAPE, TABLES, decode_rows, made_up, paged
from tests.cost.parts import calibrated_parts
from tests.cost.steps import Pool, decode, prefill, step_by_step_s
from workloads.requests import RequestTable

COST = Calibrated(SHAPE, made_up())
HARDWARE = HardwareSpec(name="none")


# -- curves ------------------------------------------------------------------------------------
points = st.lists(
    st.tuples(st.integers(1, 10**6), st.floats(0, 1e3)), min_size=1, max_size=8,
    unique_by=lambda point: point[0],
).map(sorted)  # fmt: skip


@given(points, st.lists(st.integers(0, 2 * 10**6), min_size=2, max_size=20).map(sorted))
def test_a_curve_never_falls_and_is_never_negative(measured, asked):
    amounts, seconds = zip(*measured, strict=True)
    values = Curve(amounts, seconds)(np.array(asked))
    assert (values >= 0).all()
    assert (np.diff(values) >= -1e-9 * values[-1]).all()


@given(points)
def test_a_curve_gives_back_what_was_measured(measured):
    amounts, seconds = zip(*measured, strict=True)
    rising = np.maximum.accumulate(seconds)
    assert Curve(amounts, rising)(np.array(amounts)).tobytes() == rising.tobytes()


def test_between_behind_and_before_the_points_of_a_curve():
    curve = Curve([10, 20, 40], [1.0, 3.0, 4.0])
    assert curve(np.array([15, 30, 60, 1])).tolist() == [2.0, 3.5, 5.0, 1.0]


def test_a_slower_smaller_piece_counts_for_the_larger_ones_too():
    assert Curve([1, 2, 3], [1.0, 5.0, 4.0])(np.array([3, 4])).tolist() == [5.0, 5.0]


@pytest.mark.parametrize(
    ("amounts", "seconds"),
    [([], []), ([1, 2], [1.0]), ([2, 1], [1.0, 2.0]), ([1, 1], [1.0, 2.0]), ([1], [-1.0]),
     ([1], [float("nan")]), ([-1], [1.0])],
)  # fmt: skip
def test_a_curve_refuses_what_makes_no_sense(amounts, seconds):
    with pytest.raises(ValueError):
        Curve(amounts, seconds)


def test_a_surface_is_exact_at_its_points_and_linear_between():
    surface = Surface([1, 5], [Curve([0, 10], [1.0, 2.0]), Curve([0, 10, 20], [3.0, 6.0, 7.0])])
    inner = np.array([0.0, 10.0])
    assert surface(1, inner).tolist() == [1.0, 2.0]
    assert surface(5, inner).tolist() == [3.0, 6.0]
    assert surface(3, inner).tolist() == [2.0, 4.0]
    assert surface(9, inner).tolist() == [5.0, 10.0]


@given(
    st.integers(1, 40), st.integers(0, 60), st.integers(0, 1000), st.integers(0, 500),
    st.booleans(),
)  # fmt: skip
def test_more_decoding_is_never_faster(seqs, extra, context, more, paged):
    less = COST.step_s(decode(seqs, seqs * context, block_tokens=16 * paged))
    longer = COST.step_s(decode(seqs, seqs * (context + more), block_tokens=16 * paged))
    wider = COST.step_s(decode(seqs + extra, (seqs + extra) * context, block_tokens=16 * paged))
    assert min(longer, wider) >= less * (1 - 1e-12)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(0, 200),
    st.integers(0, 100), st.booleans(),
)  # fmt: skip
def test_more_prompt_is_never_faster(new, past, extra, paged):
    pasts = [past] * len(new)
    less = COST.step_s(prefill(new, pasts, block_tokens=16 * paged)) * (1 - 1e-12)
    assert COST.step_s(prefill([new[0] + extra, *new[1:]], pasts, block_tokens=16 * paged)) >= less
    assert COST.step_s(prefill(new, [past + extra] * len(new), block_tokens=16 * paged)) >= less
    assert COST.step_s(prefill([*new, 1], [*pasts, 0], block_tokens=16 * paged)) >= less


# -- a step, worked out by hand ----------------------------------------------------------------
def test_a_decode_step_adds_up():
    # 4 rows are one tile of 16; 4 rows of 100 tokens were measured; overhead lies at 3/7.
    expected = 1.0 + 2 * (0.01 + 0.04 * 3 / 63) + 2 * 12e-3 + 0.2 + (0.1 + 0.2 * 3 / 7)
    assert COST.step_s(decode(4, 400)) == pytest.approx(expected)
    paged = expected + 2 * 12e-3 * 0.7 + 1e-3
    assert COST.step_s(decode(4, 400, block_tokens=16, table_bytes=4096)) == pytest.approx(paged)


def test_a_block_costs_what_was_measured_with_its_size():
    several = paged(decode_rows, 1.7e-3, _1=3.3e-3, _64=1.5e-3)
    cost = Calibrated(SHAPE, made_up(decode={**TABLES["decode"], "paged": several}))

    def unit(block_tokens):
        return calibrated_parts(cost, decode(4, 400, block_tokens=block_tokens))["decode"] / 24

    assert [unit(n) for n in (0, 1, 16, 64)] == pytest.approx([1e-3, 3.3e-3, 1.7e-3, 1.5e-3])
    # between two sizes: what a token costs, and its share of a page
    assert unit(2) == pytest.approx(1.7e-3 + 1.6e-3 * (1 / 2 - 1 / 16) / (1 - 1 / 16))
    assert unit(32) == pytest.approx(1.5e-3 + 0.2e-3 * (1 / 32 - 1 / 64) / (1 / 16 - 1 / 64))
    assert unit(512) == unit(64), "beyond the largest: no line goes on"
    window = cost.decode_window_s(4, 400, 30, 0, 5)
    assert window.tobytes() == step_by_step_s(cost, 4, 400, 30, 0, 5).tobytes()


def test_a_prefill_counts_the_floor_of_its_one_call_once():
    parts = calibrated_parts(COST, prefill([10, 100, 0], [0, 50, 7]))
    assert parts["prefill"] == pytest.approx(2 * (1e-3 + (5e-3 - 1e-3) + (51 * 0.3 - 1e-3)))
    assert parts["linear"] == pytest.approx(2.5 + 48 / 32)  # 110 tokens are 112 rows


def test_a_padding_decoder_is_charged_whole_tiles():
    linear = [calibrated_parts(COST, decode(n, n))["linear"] for n in (1, 16, 17, 32)]
    assert linear == [1.0, 1.0, 1.5, 1.5]
    plain = Calibrated(SHAPE, replace(made_up(), row_tile=1))
    assert calibrated_parts(plain, decode(24, 24))["linear"] == 1.25


@given(st.integers(0, 30), st.integers(0, 5000), st.lists(st.integers(0, 200), max_size=3))
def test_the_parts_sum_to_the_step(seqs, context, new):
    work = prefill(new, sampled=seqs, table_bytes=100 * seqs)
    work.decode_seqs, work.decode_context_tokens = seqs, context if seqs else 0
    assert sum(calibrated_parts(COST, work).values()) == pytest.approx(COST.step_s(work), rel=1e-12)


# -- skipping ahead ----------------------------------------------------------------------------
@given(
    st.integers(0, 40), st.integers(0, 10**5), st.integers(0, 40),
    st.one_of(st.integers(0, 10**5), st.lists(st.integers(0, 10**5), min_size=40, max_size=40)),
    st.booleans(),
)  # fmt: skip
def test_a_window_is_bitwise_its_single_steps(seqs, context, steps, sent, paged):
    table_bytes = np.array(sent[:steps], dtype=np.int64) if isinstance(sent, list) else sent
    window = COST.decode_window_s(seqs, context, steps, table_bytes, 16 * paged)
    single = step_by_step_s(COST, seqs, context, steps, table_bytes, 16 * paged)
    assert window.tobytes() == single.tobytes()


@pytest.mark.parametrize("family", [Paged, Virtual])
def test_a_simulated_run_is_the_same_whether_it_skips_or_not(family):
    n, rng = 30, np.random.default_rng(0)
    requests = RequestTable(np.zeros(n), rng.integers(1, 100, n), rng.integers(20, 60, n))
    pool = Geometry(
        # a page of 64 KiB holds 512 tokens of one tensor
        capacity_tokens=6 * 512 if family is Virtual else 1024, max_seqs=16, max_len=256,
        layers=2, kv_heads=2, head_dim=16, dtype_bytes=4,
    )  # fmt: skip
    finished = []
    for skip in (True, False):
        allocator = Virtual(pool, page_size="64KiB") if family is Virtual else family(pool)
        engine = Engine(Setup(
            allocator, requests, SamplingSpec(), EngineSpec(max_num_seqs=16, skip_ahead=skip),
            SimulatedExecutor(COST, allocator), 0,)
        )  # fmt: skip
        finished.append(engine.run("run").requests["finish_s"])
    assert finished[0].tobytes() == finished[1].tobytes()
    assert (finished[0] > 0).all()


# -- grants ------------------------------------------------------------------------------------
def allocator(page_bytes=65536):
    shape = Geometry(1000, 8, 1000, layers=2, kv_heads=2, head_dim=16, dtype_bytes=4)
    return Pool(geometry=shape, pages_per_group=4, page_bytes=page_bytes)


def rows(n, slots=1):
    return np.array([[0, 0, slots]] * n, dtype=np.int64)


def test_a_grant_is_charged_by_its_calls_and_bytes():
    grant = Grant(maps=rows(3), unmaps=rows(2))
    assert COST.grant_s(grant, allocator()) == pytest.approx(12e-3 + 16e-3)
    assert COST.grant_s(Grant(maps=rows(1)), allocator(2097152)) == pytest.approx(20e-3)
    # a slot is 512 bytes
    assert COST.grant_s(Grant(copies=rows(2, 2)), allocator()) == pytest.approx(1e-2 + 2e-2 / 3)
    both = Grant(swaps_out=rows(1, 8), swaps_in=rows(1, 2))
    assert COST.grant_s(both, allocator()) == pytest.approx(5e-2 + 3e-2)
    assert COST.grant_s(EMPTY_GRANT, allocator()) == 0.0


@pytest.mark.parametrize("page_bytes", [32768, 131072, 4194304])
def test_a_page_size_that_was_not_measured_has_no_time(page_bytes):
    # 64 KiB and 2 MiB were: neither their line nor the nearer one says what another driver takes
    for name, grant in (("map", Grant(maps=rows(1))), ("unmap", Grant(unmaps=rows(1)))):
        with pytest.raises(Unsupported, match=rf"{name} of \d+ KiB: measured were 64, 2048 KiB"):
            COST.grant_s(grant, allocator(page_bytes))


def test_where_nothing_could_be_mapped_maps_are_unsupported_and_copies_are_not():
    none = {"page_bytes": [], "seconds": [], "reason": "cuda-bindings is not installed"}
    cost = Calibrated(SHAPE, made_up(map=none, unmap=none), "cal.json")
    with pytest.raises(Unsupported, match=r"cal.json .* 64 KiB: cuda-bindings is not installed"):
        cost.grant_s(Grant(maps=rows(1)), allocator())
    assert cost.grant_s(Grant(copies=rows(1, 2)), allocator()) == 1e-2
