"""The roofline of models with layer groups: exact skipping, uniform models as one, physics."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost import (
    CostError,
    CostSpec,
    HardwareSpec,
    LayerSpec,
    ModelShape,
    Roofline,
    make_cost,
    parameter_count,
)
from harness.cost.kv import layer_groups, settled_layers, state_bytes
from harness.cost.layered import prefill_s
from harness.cost.parameters import key_value_parameters
from harness.cost.reads import decode_reads
from tests.cost.steps import decode, prefill
from tests.places import shipped

H100 = shipped(HardwareSpec, "hardware", "h100-80gb")
NAMES = (
    "gpt-oss-20b", "gemma-2-9b", "llama-4-scout", "deepseek-v2-lite", "jamba-1.5-mini",
    "qwen3-next-80b-a3b", "llama-3.2-11b-vision", "ministral-8b",
)  # fmt: skip


def roofline(model, count=1, **changes):
    shape = model if isinstance(model, ModelShape) else shipped(ModelShape, "model", model)
    return Roofline(replace(shape, **changes), replace(H100, count=count), CostSpec())


ROOFLINES = [roofline(name) for name in NAMES]
LENGTHS = st.lists(st.integers(1, 70_000), min_size=1, max_size=8)


def decoding(roof, lengths, **more):
    reads = decode_reads(roof.layer_groups, np.array(lengths))[:, 0]
    return decode(len(lengths), reads, **more)


# -- skipping ahead ----------------------------------------------------------------------------
@given(
    st.sampled_from(ROOFLINES), LENGTHS, st.integers(1, 40), st.integers(0, 10**6),
    st.sampled_from((0, 16)),
)  # fmt: skip
def test_a_window_is_bitwise_its_single_steps(roof, lengths, steps, sent, block_tokens):
    reads = decode_reads(roof.layer_groups, np.array(lengths), steps)
    window = roof.decode_window_s(len(lengths), reads, steps, sent, block_tokens)
    tables = {"table_bytes": sent, "block_tokens": block_tokens}
    single = [
        roof.step_s(decoding(roof, [length + step for length in lengths], **tables))
        for step in range(steps)
    ]
    assert window.tobytes() == np.array(single).tobytes()


# -- a uniform model, written as one layer group -------------------------------------------------
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
@pytest.mark.parametrize(
    "kind",
    [{"kind": "full"}, {"kind": "sliding", "window": 10**6}, {"kind": "chunked", "window": 10**6}],
)
def test_one_layer_group_of_all_tokens_costs_what_a_uniform_model_costs(kind, kv_dtype, count):
    uniform = roofline("llama-3-8b", count, kv_dtype=kv_dtype)
    same = roofline(
        "llama-3-8b", count, kv_dtype=kv_dtype, layer_groups=[LayerSpec(layers=32, **kind)]
    )
    lengths = [1, 17, 4000]
    for block_tokens in (0, 16):
        plain = uniform.step(decode(3, sum(lengths), block_tokens=block_tokens))
        assert same.step(decoding(same, lengths, block_tokens=block_tokens)) == plain
        work = prefill([100, 3000], [0, 500], sampled=2, block_tokens=block_tokens)
        assert same.step(work) == uniform.step(work)


# -- windows -----------------------------------------------------------------------------------
def test_beyond_its_window_a_layer_takes_no_longer():
    roof = roofline("gpt-oss-20b")
    sliding, full = roof.layers_of_blocks(0)
    times = [roof.step_s(decoding(roof, [n] * 64)) for n in (100, 5_000, 9_900)]
    full_s = 64 * 4_900 * full.prices.decode_context_s
    assert times[2] - times[1] == pytest.approx(full_s)
    assert times[1] - times[0] == pytest.approx(full_s + 64 * 28 * sliding.prices.decode_context_s)


def test_a_windows_prompt_grows_by_its_length_and_a_full_one_by_its_square():
    model = ModelShape("toy", "llama", 32, 4096, 32, 8, 128, 14336, 1000, 2**20)
    times = {}
    for kind, window in (("full", 0), ("sliding", 1024), ("chunked", 1024)):
        layers = [LayerSpec(kind, 32, window)]
        roof = roofline(model, layer_groups=layers)
        times[kind] = [roof.step(prefill([n])).attention_s for n in (2**15, 2**16)]
    assert times["full"][1] / times["full"][0] > 3.7
    for kind in ("sliding", "chunked"):
        assert 1.8 < times[kind][1] / times[kind][0] < 2.1
    assert times["chunked"][0] < times["sliding"][0] < times["full"][0] / 8


# -- latents -----------------------------------------------------------------------------------
def test_decoding_latents_is_as_fast_as_flash_mla_prints():
    # github.com/deepseek-ai/FlashMLA, README: 660 TFLOPS where compute-bound (H800 SXM5)
    (latent,) = roofline("deepseek-v3").layers_of_blocks(0)
    flops = 2 * 61 * 128 * (576 + 512)
    assert flops / latent.prices.decode_context_s / 1e12 == pytest.approx(660, rel=0.15)


def test_latents_of_few_heads_are_bound_by_memory():
    (latent,) = roofline("deepseek-v2-lite").layers_of_blocks(0)
    assert 27 * 576 * 2 / latent.prices.decode_context_s == pytest.approx(3350e9 * 0.9)
    (eight,) = roofline("deepseek-v2-lite", 8).layers_of_blocks(0)  # each rank reads all of it
    assert eight.prices.decode_context_s == latent.prices.decode_context_s


def test_tokens_before_a_piece_are_made_keys_of_again():
    roof = roofline("deepseek-v2-lite")
    (latent,) = roof.layers_of_blocks(0)
    up = 27 * 512 * 16 * (128 + 128)
    assert latent.past_token_s == pytest.approx(2 * up / (roof.flop_s * 0.85))
    whole, cut = roof.step(prefill([4096])), roof.step(prefill([2048], [2048]))
    first = roof.step(prefill([2048]))
    assert first.attention_s + cut.attention_s - whole.attention_s > 2048 * latent.past_token_s
    new, past = np.array([2048]), np.array([2048])
    plain = prefill_s((latent._replace(past_token_s=0.0),), new, past)
    assert prefill_s((latent,), new, past) - plain == pytest.approx(2048 * latent.past_token_s)


# -- states ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["jamba-1.5-mini", "qwen3-next-80b-a3b"])
def test_a_state_is_read_and_written_whatever_the_length(name):
    roof = roofline(name)
    state, full = roof.layers_of_blocks(0)
    layer = settled_layers(roof.model)[0]
    kept = layer.layers * state_bytes(roof.model, layer)
    assert state.prices.decode_context_s == pytest.approx(2 * kept / (3350e9 * 0.9))
    short, long = (roof.step_s(decoding(roof, [n] * 8)) for n in (10, 10_010))
    assert long - short == pytest.approx(8 * 10_000 * full.prices.decode_context_s)


def test_a_prompt_twice_as_long_is_scanned_in_about_twice_the_time():
    model = replace(shipped(ModelShape, "model", "qwen3-next-80b-a3b"), layers=37)
    model.layer_groups = [model.layer_groups[0], replace(model.layer_groups[1], layers=1)]
    state = roofline(model).layers_of_blocks(0)[0]
    one, two = (prefill_s((state,), np.array([n]), np.array([0])) for n in (2**14, 2**15))
    assert 1.9 < two / one < 2.0


def test_a_state_has_no_tiles_of_keys_and_no_table_of_blocks():
    state = roofline("qwen3-next-80b-a3b").layers_of_blocks(0)[0]
    many, few = (prefill_s((state,), np.full(n, 64), np.zeros(n, int)) for n in (64, 1))
    a_token = 36 * (2 * 64 * (32 * 128 + 4096) + 4 * 4096 * 128) / (989e12 * 0.6)
    moved = 36 * 2 * (8192 + 2 * 4096) / (3350e9 * 0.3)
    read = 36 * 2 * state_bytes(*_state_of("qwen3-next-80b-a3b")) / (3350e9 * 0.3) / 64
    assert many - few == pytest.approx(63 * 64 * max(a_token, moved + read))
    slow = roofline("qwen3-next-80b-a3b").layers_of_blocks(1)
    assert slow[0] == state
    full = roofline("qwen3-next-80b-a3b").layers_of_blocks(0)[1]
    assert slow[1].prices.decode_context_s > full.prices.decode_context_s


def test_what_scans_a_prompt():
    mamba = roofline("jamba-1.5-mini").layers_of_blocks(0)[0].prices
    # 9 FLOP a token, channel and number, none of them on tensor cores
    assert mamba.prefill_pair_s == pytest.approx(28 * 9 * 16 * 8192 * 16 / (989e12 * 0.6))
    given = [LayerSpec("state", 12, state_bytes=8192, parameters=10**6), LayerSpec("full", 20)]
    other, two = (
        roofline("llama-3-8b", count, layer_groups=given).layers_of_blocks(0)[0] for count in (1, 2)
    )
    # a multiplication and an addition to write each number, and to read it
    assert other.prices.prefill_pair_s == pytest.approx(12 * 4 * 4096 / (989e12 * 0.6))
    assert other.group.slot_bytes == two.group.slot_bytes == 12 * 8192


def test_small_kernels_of_a_state_are_those_of_its_convolution_and_gates():
    model = shipped(ModelShape, "model", "jamba-1.5-mini")
    state, full = model.layer_groups
    wider = replace(model, layer_groups=[replace(state, inner=2 * 8192), full])
    more = 28 * 2 * 2 * (8192 + 8192) / (3350e9 * 0.55)
    times = (roofline(each).of_blocks(0).elementwise_s for each in (wider, model))
    assert next(times) - next(times) == pytest.approx(more)


def _state_of(name):
    model = shipped(ModelShape, "model", name)
    return model, settled_layers(model)[0]


# -- encoders ----------------------------------------------------------------------------------
def test_an_encoders_keys_are_made_once_a_prompt_and_read_by_every_token():
    roof = roofline("llama-3.2-11b-vision")
    _, cross = roof.layers_of_blocks(0)
    layer = settled_layers(roof.model)[1]
    made = 8 * 6404 * 2 * key_value_parameters(roof.model, layer)
    assert cross.first_piece_s == pytest.approx(made / (roof.flop_s * 0.85))
    one, two = roof.step_s(decoding(roof, [50])), roof.step_s(decoding(roof, [50, 50]))
    read = 6404 * cross.prices.decode_context_s
    assert two - one > read
    first, second = (prefill_s((cross,), np.array([64]), np.array([past])) for past in (0, 64))
    assert first - second == pytest.approx(cross.first_piece_s)


def test_text_does_not_pass_the_projections_of_an_encoders_keys():
    roof = roofline("llama-3.2-11b-vision")
    layer = settled_layers(roof.model)[1]
    passed = roof.of_blocks(0).flops_weights
    uniform = roofline("llama-3.2-11b-vision", layer_groups=[]).of_blocks(0).flops_weights
    assert uniform - passed == 8 * key_value_parameters(roof.model, layer) == 8 * 4096 * 2048
    # but has norms of its queries and keys (mllama's class)
    plain = replace(roof.model, layer_groups=[])
    assert parameter_count(roof.model) - parameter_count(plain) == 8 * 2 * 128


# -- ranks -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_compute_half_each_and_both_read_whole_latents(name):
    one, two = (roofline(name, count).layers_of_blocks(0) for count in (1, 2))
    for alone, shared in zip(one, two, strict=True):
        for field in ("decode_seq_s", "prefill_pair_s", "prefill_kv_s", "prefill_query_s"):
            assert getattr(shared.prices, field) == pytest.approx(getattr(alone.prices, field) / 2)
        assert shared.past_token_s == pytest.approx(alone.past_token_s / 2)
        assert shared.first_piece_s == pytest.approx(alone.first_piece_s / 2)
        parts = 1 if alone.group.kind == "latent" else 2
        assert shared.prices.decode_context_s == pytest.approx(
            alone.prices.decode_context_s / parts
        )


# -- weights -----------------------------------------------------------------------------------
def test_experts_in_mxfp4_are_read_in_their_bits():
    four, sixteen = roofline("gpt-oss-20b"), roofline("gpt-oss-20b", expert_bits=0.0)
    experts = four.of_blocks(0).expert * 32, sixteen.of_blocks(0).expert * 32
    assert experts[0] / experts[1] == pytest.approx(4.25 / 16)
    assert four.of_blocks(0).flops_weights == sixteen.of_blocks(0).flops_weights
    assert experts[1] == 24 * 32 * 3 * 2880 * 2880


def test_fp8_weights_leave_the_output_head_as_it_is():
    eight, sixteen = roofline("deepseek-v3"), roofline("deepseek-v3", weight_bits=0.0)
    for name in ("weight_s", "head_read"):
        ratio = getattr(eight.of_blocks(0), name) / getattr(sixteen.of_blocks(0), name)
        expected = {"weight_s": 0.5, "head_read": 2.0}[name]  # and a scale for 128 x 128 weights
        assert ratio == pytest.approx(expected, rel=3e-4)


def test_small_kernels_pass_shared_experts_and_dense_layers():
    model = shipped(ModelShape, "model", "deepseek-v2-lite")
    per_token = roofline(model).of_blocks(0).elementwise_s
    without = replace(model, shared_ffn=0, dense_layers=0, dense_ffn=0)
    wide = 26 * 2816 + 10944 - 6 * 1408  # of which 26 layers have experts besides
    more = 3 * 2 * wide / (3350e9 * 0.55)
    assert per_token - roofline(without).of_blocks(0).elementwise_s == pytest.approx(more)


def test_quantised_keys_are_read_in_their_bytes():
    half = roofline("llama-3-8b", kv_dtype="fp8").of_blocks(0).decode_context_s
    scaled = roofline("llama-3-8b", kv_dtype="int8").of_blocks(0).decode_context_s
    plain = roofline("llama-3-8b").of_blocks(0).decode_context_s
    assert half / plain == 0.5
    assert scaled / plain == pytest.approx((128 + 4) / 256)


@pytest.mark.parametrize("roof", ROOFLINES, ids=NAMES)
def test_longer_sequences_are_never_faster_but_where_a_chunk_ends(roof):
    if any(group.kind == "chunked" for group in roof.layer_groups):
        step = roof.step_s(decoding(roof, [8192])), roof.step_s(decoding(roof, [8193]))
        assert step[1] < step[0]
        return
    times = [roof.step_s(decoding(roof, [n])) for n in (1, 100, 5_000, 40_000, 100_000)]
    assert times == sorted(times)
    prompts = [roof.step_s(prefill([n])) for n in (1, 100, 5_000, 40_000)]
    assert prompts == sorted(prompts)


def test_a_calibration_is_of_uniform_models_only():
    model = shipped(ModelShape, "model", "gemma-2-9b")
    cost = CostSpec(name="calibrated", file="none.json")
    with pytest.raises(CostError, match=r"layers that keep different KV.*cost_model=roofline"):
        make_cost(model, H100, cost)
    quantised = replace(shipped(ModelShape, "model", "llama-3-8b"), kv_dtype="fp8")
    with pytest.raises(CostError, match="kv_dtype=fp8 needs cost_model=roofline"):
        make_cost(quantised, H100, cost)


def test_the_cost_model_names_the_layer_groups_that_it_is_told_of():
    for roof in ROOFLINES:
        assert roof.layer_groups == layer_groups(roof.model)
    assert roofline("llama-3-8b").layer_groups == ()
