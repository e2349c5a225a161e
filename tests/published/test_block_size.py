"""What small blocks cost: the fits behind the defaults, and rows that took no part in them."""

import csv

import numpy as np
import pytest

from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline, SoftwareSpec
from harness.cost.roofline import block_slowdown
from harness.cost.spec import MEASURED_BLOCK_TOKENS
from tests.cost.steps import decode
from tests.places import ROOT, shipped

COST = CostSpec()
SWEPT = (1, 8, 16, 64, 256)


@pytest.fixture(scope="module")
def published():
    """A function from (source, part of the note, other columns) to {tokens a block: value}."""
    with (ROOT / "results" / "published" / "block_size.csv").open() as file:
        rows = list(csv.DictReader(file))

    def find(source, note="", **columns):
        found = {
            int(row["block_tokens"]): float(row["value"])
            for row in rows
            if row["source"].startswith(source) and note in row["note"] and row["block_tokens"]
            and all(row[name].startswith(text) for name, text in columns.items())
        }  # fmt: skip
        assert found, (source, note, columns)
        return found

    return find


def fitted(times):
    """Return (tokens that a block costs, relative errors) of least squares on {block: time}."""
    sizes, measured = np.array(list(times)), np.array(list(times.values()))
    per_block = np.maximum(0.0, 1 / sizes - 1 / MEASURED_BLOCK_TOKENS)
    lines = np.column_stack([np.ones(len(sizes)), per_block])
    (base, slope), *_ = np.linalg.lstsq(lines / measured[:, None], np.ones(len(sizes)), rcond=None)
    return slope / base, (base + slope * per_block) / measured - 1


# -- fits --------------------------------------------------------------------------------------
def test_decode_is_fitted_to_flash_attention_4(published):
    times = published("Dao-AILab/flash-attention pull request 2104")
    tiles = times.pop(128)  # another way to load
    tokens, errors = fitted(times)
    assert tokens == pytest.approx(COST.block_decode_tokens, rel=0.01)
    assert np.abs(errors).max() < 0.02
    assert times[32] > 1.1 * tiles


def test_prompts_are_fitted_to_two_kernels_of_amd(published):
    source = "ROCm/FlyDSL pull request 1066"
    pairs = [published(source, "behind", kernel=name) for name in ("FlyDSL", "AITER")]
    tokens = [fitted(times)[0] for times in pairs]
    assert np.mean(tokens) == pytest.approx(COST.block_prefill_tokens, rel=0.05)


def test_an_entry_of_a_table_is_what_vllm_took_to_write_it():
    with (ROOT / "results" / "published" / "block_size.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "pull request 4196" in row["source"]]
    after = [float(row["value"]) for row in rows if "after" in row["note"]]
    assert np.mean(after) * 1e6 / (11 * 128) == pytest.approx(
        SoftwareSpec().table_entry_ns, rel=0.01
    )


# -- checks: none of these rows set a constant -------------------------------------------------
def test_the_first_kernel_of_flash_attention_4_pays_less_for_a_block(published):
    times = published("Dao-AILab/flash-attention pull request 1999")
    del times[128]
    tokens, _ = fitted(times)
    assert 0.6 < tokens / COST.block_decode_tokens < 0.7


def test_a_server_with_one_token_a_block_loses_more_than_here(published):
    # SGLang, FlashAttention-3, Llama-3-8B, 16 rows of 1024 to 1536 tokens, no CUDA graphs
    measured = published("sgl-project/sglang pull request 4832", quantity="decode step")
    model = shipped(ModelShape, "model", "llama-3-8b")
    hardware = shipped(HardwareSpec, "hardware", "h100-80gb")
    roof = Roofline(model, hardware, COST)
    ours = {b: roof.step_s(decode(16, 16 * 1280, block_tokens=b)) for b in measured}
    slower = 1e3 * (ours[1] - ours[64]) / (measured[1] - measured[64])
    assert 0.6 < slower < 0.8
    assert measured[128] == pytest.approx(measured[64], rel=0.01)
    assert ours[128] == ours[64]


@pytest.mark.parametrize("context", [2048, 4096, 8192, 16384, 32768])
def test_kernels_bound_by_arithmetic_hardly_see_the_block(published, context):
    rates = published("Dao-AILab/flash-attention pull request 2468", context_tokens=str(context))
    slower = [block_slowdown(COST.block_prefill_tokens, b) for b in (16, 64)]
    assert rates[64] / rates[16] == pytest.approx(slower[0] / slower[1], abs=0.03)


@pytest.mark.parametrize("head_dim", ["128", "192"])
@pytest.mark.parametrize("kernel", ["FlyDSL", "AITER"])
def test_prompts_with_one_token_a_block_lie_within_a_point_of_other_shapes(
    published, kernel, head_dim
):
    least, most = (
        published(
            "ROCm/FlyDSL", kernel=kernel, head_dim=head_dim,
            quantity=f"longer than with 16 tokens a block, {end}",
        )[1]
        for end in ("least", "most")
    )  # fmt: skip
    one, sixteen = (block_slowdown(COST.block_prefill_tokens, b) for b in (1, 16))
    assert least - 1 <= 100 * (one / sixteen - 1) <= most + 1


def test_a_server_does_not_tell_16_from_64(published):
    # FlashInfer, Qwen3-4B: 0.3 % a step, alone; here qwen3-8b, whose KV is as large
    times = published("pegainfer-project", batch="1", quantity="time per output token")
    assert times[16] == pytest.approx(times[64], rel=0.01)
    model = shipped(ModelShape, "model", "qwen3-8b")
    roof = Roofline(model, shipped(HardwareSpec, "hardware", "rtx-4090"), COST)
    for rows in (1, 16, 32):
        small, large = (roof.step_s(decode(rows, 512 * rows, block_tokens=b)) for b in (16, 64))
        assert small == pytest.approx(large, rel=0.015)


# -- Fig. 18b ----------------------------------------------------------------------------------
def test_the_best_block_lies_where_pagedattention_found_it(compare):
    # Published, ShareGPT: 16 to 128 are best, smaller and larger ones worse.
    def rates(*overrides):
        found = {}
        for block in SWEPT:
            metrics, _ = compare(
                "+workload=sharegpt", "allocator=[paged]", "workload.num_requests=300",
                f"allocators.paged.block_size={block}", *overrides,
            )  # fmt: skip
            found[block] = metrics["paged"]["requests_per_s"]
        return found

    priced = rates()
    best = max(priced.values())
    assert min(priced[16], priced[64]) > 0.97 * best
    assert priced[1] < 0.9 * best
    assert priced[8] < best
    assert priced[256] < 0.95 * best
    free = rates(
        "cost_model.block_decode_tokens=0",
        "cost_model.block_prefill_tokens=0",
        "software.table_entry_ns=0",
    )
    assert max(free, key=free.get) < 16
