"""Layer groups: what each keeps by rank and by number format, and groups that cannot be."""

from dataclasses import replace

import pytest

from allocators.layers import LayerGroup
from harness.comparison import compose, prepare
from harness.cost import CostError, LayerSpec, ModelShape, kv_bytes_per_token, weight_bytes
from harness.cost.kv import kv_geometry, layer_groups, needed_bytes, settled_layers, state_bytes
from harness.cost.limits import check_model
from harness.errors import ConfigError
from harness.size.__main__ import main as size
from tests.places import shipped


def model(name, **changes):
    return replace(shipped(ModelShape, "model", name), **changes)


def slots(shape, ranks=1):
    return [group.slot_bytes for group in layer_groups(shape, ranks)]


# -- bytes -------------------------------------------------------------------------------------
def test_a_uniform_model_has_no_layer_groups_and_is_one_full_group():
    uniform = model("llama-3-8b")
    assert layer_groups(uniform) == ()
    grouped = replace(uniform, layer_groups=[LayerSpec("full", 32)])
    assert layer_groups(grouped) == (LayerGroup("full", 32, kv_bytes_per_token(uniform)),)
    assert weight_bytes(grouped) == weight_bytes(uniform)


def test_published_bytes_of_a_token():
    # DeepSeek-V2, arXiv 2405.04434: 512 + 64 numbers in each layer, of any number of heads
    assert kv_bytes_per_token(model("deepseek-v3")) == 61 * 576 * 2
    # Jamba, arXiv 2403.19887: 4 GB for 256K tokens in 16 bits
    assert kv_bytes_per_token(model("jamba-1.5-mini")) * 2**18 == 4 * 2**30
    # gpt-oss, arXiv 2508.10925: of 24 layers each second has a window of 128
    assert slots(model("gpt-oss-20b")) == [12 * 2 * 8 * 64 * 2] * 2


def test_bytes_of_a_state():
    # Mamba keeps [8192, 16] and the convolution's last 3 inputs; Qwen3-Next 32 states of 128 x 128
    # and 3 inputs of 2 x 16 x 128 + 4096 channels
    jamba, qwen = model("jamba-1.5-mini"), model("qwen3-next-80b-a3b")
    assert slots(jamba)[0] == 28 * 2 * 8192 * (16 + 3)
    assert slots(qwen)[0] == 36 * 2 * (32 * 128 * 128 + 3 * 8192)
    wide = replace(qwen, layer_groups=[replace(qwen.layer_groups[0], state_dtype_bytes=4),
                                       qwen.layer_groups[1]])  # fmt: skip
    assert slots(wide)[0] == 36 * (4 * 32 * 128 * 128 + 2 * 3 * 8192)


def test_ranks_split_heads_and_states_and_copy_latents():
    assert slots(model("gpt-oss-20b"), 8) == slots(model("gpt-oss-20b"))
    assert slots(model("gpt-oss-20b"), 16) == [2 * each for each in slots(model("gpt-oss-20b"))]
    assert slots(model("deepseek-v3"), 8) == [8 * each for each in slots(model("deepseek-v3"))]
    qwen = model("qwen3-next-80b-a3b")
    state, full = slots(qwen)
    assert slots(qwen, 2) == [state, full]
    assert slots(qwen, 8) == [state, 4 * full]  # 2 KV heads on 8 ranks
    mamba2 = LayerSpec("state", 4, mixer="mamba2", inner=1024, state_dim=64, state_groups=1,
                       state_heads=16, conv_kernel=4)  # fmt: skip
    toy = replace(qwen, layers=5, layer_groups=[mamba2, LayerSpec("full", 1)])
    layer = settled_layers(toy)[0]
    assert state_bytes(toy, layer) == 2 * (1024 * 64 + 3 * (1024 + 2 * 64))
    assert state_bytes(toy, layer, 4) == 2 * (256 * 64 + 3 * (256 + 2 * 64))  # B and C on each


def test_heads_of_keys_and_values_may_differ_by_layer():
    layers = [LayerSpec("full", 16, kv_heads=4, head_dim=64, v_head_dim=96), LayerSpec("full", 16)]
    shape = model("llama-3-8b", layer_groups=layers)
    assert slots(shape) == [16 * 4 * (64 + 96) * 2, 16 * 8 * 256 * 2]


@pytest.mark.parametrize(
    ("kv_dtype", "bytes_"),
    [("auto", 256), ("bf16", 256), ("fp16", 256), ("fp32", 512), ("fp8", 128),
     ("fp8_per_token_head", 132), ("int8", 132)],
)  # fmt: skip
def test_a_head_keeps_its_numbers_and_its_scale(kv_dtype, bytes_):
    for layers in ([], [LayerSpec("full", 8), LayerSpec("sliding", 24, 100)]):
        shape = model("llama-3-8b", kv_dtype=kv_dtype, layer_groups=layers)
        assert kv_bytes_per_token(shape) == 2 * 32 * 8 * bytes_
        room = kv_geometry(shape, 2, capacity_tokens=100, max_seqs=1, max_len=9)
        assert room.bytes_per_token == kv_bytes_per_token(shape, 2)
        assert room.capacity_bytes == 100 * room.bytes_per_token


def test_scales_of_a_whole_tensor_are_kept_with_the_weights():
    plain = weight_bytes(model("llama-3-8b"))
    assert weight_bytes(model("llama-3-8b", kv_dtype="fp8")) == plain + 32 * 2 * 4
    assert weight_bytes(model("llama-3-8b", kv_dtype="int8")) == plain


def test_a_state_is_no_key_and_no_value():
    jamba = model("jamba-1.5-mini")
    state, full = slots(jamba)
    assert slots(replace(jamba, kv_dtype="fp8")) == [state, full // 2]


def test_published_sizes_of_checkpoints():
    # gpt-oss model card, arXiv 2508.10925, table 1: 12.8 and 60.8 GiB
    assert weight_bytes(model("gpt-oss-20b")) / 2**30 == pytest.approx(12.8, rel=0.01)
    assert weight_bytes(model("gpt-oss-120b")) / 2**30 == pytest.approx(60.8, rel=0.01)


def test_a_published_size_of_a_request():
    # vllm-project/vllm issue 27508: 4.54 GiB for 131,072 tokens, with a step of 1,024 besides
    sliding, full = layer_groups(model("gpt-oss-120b"))
    needed = needed_bytes((sliding, full), 131_072)
    assert needed == sliding.slot_bytes * 128 + full.slot_bytes * 131_072
    pages = -(-(127 + 1024) // 16) + 1
    asked = full.slot_bytes * 131_072 + sliding.slot_bytes * 16 * pages
    assert round(asked / 2**30, 2) == 4.54
    assert 0.99 < needed / asked < 1


# -- what managers that keep every layer for every token waste (Jenga, arXiv 2503.18292) ----------
@pytest.mark.parametrize(
    ("name", "tokens", "waste"),
    [("gemma-2-9b", 8192, 0.25), ("ministral-8b", 131_072, 0.5625), ("gemma-2-9b", 4096, 0.0)],
)
def test_what_is_behind_a_window_is_the_published_waste(name, tokens, waste):
    shape = model(name)
    needed = needed_bytes(layer_groups(shape), tokens)
    assert 1 - needed / (tokens * kv_bytes_per_token(shape)) == waste


def test_text_in_cross_layers_and_images_in_the_others_are_the_published_waste():
    vision = model("llama-3.2-11b-vision")
    vision.layer_groups[1].encoder_tokens = 6193
    groups = layer_groups(vision)
    every_layer = sum(group.slot_bytes for group in groups) * (43 + 6193)
    needed = 43 * groups[0].slot_bytes + 6193 * groups[1].slot_bytes
    assert needed_bytes(groups, 43) == needed
    assert 1 - needed / every_layer == pytest.approx(0.796, abs=5e-4)


def test_what_a_sequence_needs_at_most():
    groups = (
        LayerGroup("full", 1, 7),
        LayerGroup("sliding", 1, 100, window=4),
        LayerGroup("chunked", 1, 10_000, window=8),
        LayerGroup("state", 1, 1_000_000),
    )
    assert needed_bytes(groups, 0) == 0
    assert needed_bytes(groups, 3) == 1_030_321
    assert needed_bytes(groups, 100) == 1_080_000 + 400 + 700


# -- a configuration ---------------------------------------------------------------------------
SMALL = ("+workload=uniform", "workload.num_requests=3", "engine.max_num_seqs=4")


def geometry(*options):
    return prepare(compose(*SMALL, *options)).geometry


def test_the_pool_is_that_of_all_layer_groups_together():
    pool = geometry("model=gemma-3-27b", "kv_memory_gib=10", "engine=chunked")
    assert (pool.pool_bytes, pool.capacity_bytes) == (10 * 2**30, 10 * 2**30)
    assert pool.capacity_tokens == 10 * 2**30 // (62 * 2 * 16 * 128 * 2)
    assert pool.step_tokens == 2048
    assert geometry("model=gemma-3-27b", "kv_tokens=5000").pool_bytes == 5000 * 507_904


def test_the_token_budget_of_a_step_is_the_engines():
    assert geometry("model=gemma-2-9b", "kv_tokens=9000", "engine=static").step_tokens == 0
    pool = geometry("model=gemma-2-9b", "kv_tokens=9000", "engine.max_num_batched_tokens=777")
    assert pool.step_tokens == 777


def test_kv_dtype_is_an_option_of_a_run():
    plain, eight = (
        geometry("model=llama-3-8b", "kv_memory_gib=4", f"kv_dtype={name}")
        for name in ("auto", "fp8")
    )
    assert eight.capacity_tokens == 2 * plain.capacity_tokens
    with pytest.raises(ConfigError, match=r"model\.kv_dtype must be one of auto, .*, got 'int3'"):
        geometry("kv_dtype=int3")


def test_what_fits_because_of_windows_is_not_refused():
    # 30,000 tokens in 12 full layers and 128 in 12 with a window: 0.69 GiB, of 1.37 in all layers
    long = ("workload.prompt.low=29997", "workload.prompt.high=29997", "workload.output.low=4",
            "workload.output.high=4", "model=gpt-oss-20b")  # fmt: skip
    assert geometry(*long, "kv_memory_gib=0.7").capacity_tokens < 30_000
    with pytest.raises(ConfigError) as caught:
        geometry(*long, "kv_memory_gib=0.6")
    needed = 24_576 * (30_000 + 128)
    assert f"alone needs {needed} for its 30000 tokens: raise kv_memory_gib" in str(caught.value)


# -- groups that cannot be ---------------------------------------------------------------------
STATE = {"kind": "state", "mixer": "mamba2", "inner": 64, "state_dim": 8, "state_groups": 1,
         "state_heads": 4, "conv_kernel": 4}  # fmt: skip
BAD = [
    ({"kind": "dense"}, "kind must be one of full, latent, sliding, chunked, state, cross"),
    ({"layers": 0}, "layers must be at least 1, got 0"),
    ({"kind": "sliding"}, "window must be given for kind sliding, and be at least 1"),
    ({"window": 8}, "window is for kind sliding, chunked, got kind full"),
    ({"kind": "cross"}, "encoder_tokens must be given for kind cross"),
    ({"encoder_tokens": 5}, "encoder_tokens is for kind cross, got kind full"),
    ({"kind": "latent", "rope_dim": 64}, "kv_lora_rank must be given for kind latent"),
    ({"kind": "latent", "kv_lora_rank": 8, "rope_dim": 128}, "rope_dim must be less than head_dim"),
    ({"kv_lora_rank": 8}, "kv_lora_rank is for kind latent, got kind full"),
    ({"kind": "state"}, "state_bytes must be given for kind state"),
    ({"kind": "state", "state_bytes": 8}, "parameters must be given for kind state"),
    (STATE | {"mixer": "rwkv"}, "mixer must be one of "),
    (STATE | {"state_heads": 0}, "state_heads must be given for kind state mamba2"),
    (STATE | {"state_bytes": 9}, "state_bytes and parameters are in place of a mixer, got mamba2"),
    (STATE | {"heads": 9}, "heads is for kind full, latent, sliding, chunked, cross, got kind "),
    ({"kv_heads": 7}, "kv_heads must divide the 32 heads, got 7"),
    ({"head_dim": -1}, "head_dim must be at least 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "text"), BAD, ids=lambda value: str(value)[:50])
def test_a_layer_group_that_cannot_be_is_refused_by_name(bad, text):
    layer = LayerSpec(**{"kind": "full", "layers": 12} | bad)
    with pytest.raises(CostError) as caught:
        check_model(model("llama-3-8b", layer_groups=[LayerSpec("full", 20), layer]))
    message = str(caught.value)
    assert message.startswith("model.layer_groups.1")
    assert text in message
    assert "\n" not in message


def test_a_dimension_that_there_is_not_is_refused_on_the_command_line(capsys):
    assert size(["model=gpt-oss-20b", "model.layer_groups=[{kind:full,layers:24,span:4}]"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "model.layer_groups is given a name that it does not have; there are kind, laye" in error


def test_every_layer_is_in_one_group_and_something_grows():
    with pytest.raises(CostError, match=r"have 3 layers in all and model\.layers is 32"):
        check_model(model("llama-3-8b", layer_groups=[LayerSpec("full", 3)]))
    state = LayerSpec(layers=32, **STATE)
    with pytest.raises(CostError, match="in a model of states alone nothing grows"):
        check_model(model("llama-3-8b", layer_groups=[state]))
    with pytest.raises(
        CostError, match=r"kv_dtype=int8 has a scale for each head's.*allowed: auto"
    ):
        check_model(model("deepseek-v3", kv_dtype="int8"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"dense_layers": 48, "dense_ffn": 1}, "must be some of the layers of a mixture"),
     ({"dense_layers": 2}, "must be given together"),
     ({"experts": 1, "active_experts": 1, "shared_ffn": 5}, "shared_ffn is for a mixture"),
     ({"experts": 1, "active_experts": 1, "dense_layers": 2}, "must be some of the layers")],
)  # fmt: skip
def test_a_mixture_that_cannot_be_is_refused(changes, text):
    with pytest.raises(CostError, match=text):
        check_model(model("qwen3-30b-a3b", **changes))
