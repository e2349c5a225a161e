"""The classes of transformers as oracles: their own weights, layers and caches."""

import json
import os

import pytest

from harness.cost import kv_bytes_per_token, parameter_count
from harness.cost.hf.read import read_shape
from harness.cost.kv import settled_layers
from harness.cost.limits import check_model

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYERS = 8
MANY = {"num_hidden_layers": LAYERS}
#: class of a configuration, and what is set beside its own values
CONFIGS = {
    "llama": ("Llama", {"num_key_value_heads": 8}),
    "llama of before": ("Llama", {}),
    "mistral": ("Mistral", {}),
    "ministral": ("Ministral", {
        "head_dim": 128, "layer_types": ["full_attention", *["sliding_attention"] * 3] * 2}),
    "mixtral": ("Mixtral", {}),
    "phi3": ("Phi3", {}),
    "qwen2": ("Qwen2", {}),
    "qwen2 with windows": ("Qwen2", {"use_sliding_window": True, "max_window_layers": 5}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True}),
    "qwen3 moe": ("Qwen3Moe", {"mlp_only_layers": [0, 3]}),
    "qwen3 moe by two": ("Qwen3Moe", {"decoder_sparse_step": 2}),
    "opt": ("OPT", {}),
    "gemma2": ("Gemma2", {}),
    "gemma3": ("Gemma3Text", {}),
    "gpt-oss": ("GptOss", {"num_local_experts": 16}),
    "llama4 scout": ("Llama4Text", {}),
    "llama4 maverick": ("Llama4Text", {"interleave_moe_layer_step": 2, "num_local_experts": 128}),
    "deepseek v2": ("DeepseekV2", {"num_experts_per_tok": 6, "first_k_dense_replace": 1}),
    "deepseek v2 lite": ("DeepseekV2", {"num_experts_per_tok": 6, "q_lora_rank": None}),
    "deepseek v3": ("DeepseekV3", {}),
    "jamba": ("Jamba", {}),
    "qwen3-next": ("Qwen3Next", {}),
}  # fmt: skip


def configuration(kind, folder, **changes):
    name, settings = CONFIGS[kind]
    config = getattr(transformers, f"{name}Config")(**MANY | settings | changes)
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    return config


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_weights_are_those_of_the_models_class(kind, tmp_path):
    config = configuration(kind, tmp_path)
    shape = read_shape(tmp_path)
    check_model(shape)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    weights = sum(parameter.numel() for parameter in model.parameters())
    # not counted: sinks of gpt-oss, three small norms of Jamba's, a gate of Qwen3-Next's
    few = {"gpt-oss": LAYERS * 64, "jamba": 7 * 288, "qwen3-next": LAYERS * 2048}
    assert weights - parameter_count(shape) == few.get(kind, 0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_layers_are_those_of_the_configuration(kind, tmp_path):
    config = configuration(kind, tmp_path)
    shape = read_shape(tmp_path)
    counts = {}
    for layer in settled_layers(shape):
        counts[layer.kind] = counts.get(layer.kind, 0) + layer.layers
    names = {"full": "full_attention", "latent": "full_attention", "sliding": "sliding_attention",
             "chunked": "chunked_attention", "state": "linear_attention"}  # fmt: skip
    types = getattr(config, "layer_types", None)
    if types is None:  # Mistral's class has one window for all layers, the others none
        types = ["sliding_attention" if kind == "mistral" else "full_attention"] * LAYERS
    assert {names[kind]: count for kind, count in counts.items()} == {
        name: types.count(name) for name in set(types)
    }
    windows = {layer.window for layer in shape.layer_groups if layer.kind == "sliding"}
    assert windows <= {getattr(config, "sliding_window", None)}


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "opt"])
def test_a_file_without_the_norms_epsilon_has_that_of_its_class(kind, tmp_path):
    config = configuration(kind, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["rms_norm_eps"]
    path.write_text(json.dumps(values))
    assert read_shape(tmp_path).norm_eps == config.rms_norm_eps


def cached(kind, folder, tokens, **sizes):
    """Run a tiny model; return its shape and what each layer of its cache holds."""
    config = configuration(kind, folder, vocab_size=50, **sizes)
    config.dtype = torch.float32
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        prompt = torch.randint(1, 50, (1, tokens))
        cache = model(prompt, use_cache=True).past_key_values
    return read_shape(folder), cache


TINY = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("llama", {"head_dim": 24, "intermediate_size": 32}),
        ("qwen3", {"head_dim": 24, "intermediate_size": 32}),
        ("gemma3", {"head_dim": 24, "intermediate_size": 32, "sliding_window": 16}),
        ("gpt-oss", {"head_dim": 24, "intermediate_size": 32, "sliding_window": 16,
                     "num_local_experts": 4}),
    ],
)  # fmt: skip
def test_the_keys_and_values_are_those_of_the_models_own_cache(kind, sizes, tmp_path):
    tokens = 40
    shape, cache = cached(kind, tmp_path, tokens, **TINY | sizes)
    a_layer = kv_bytes_per_token(shape) // LAYERS // shape.dtype_bytes  # numbers of a token
    held = [layer.keys.numel() + layer.values.numel() for layer in cache.layers]
    full = sum(each.layers for each in settled_layers(shape) if each.kind == "full")
    assert held.count(tokens * a_layer) == full
    # Beside the token being computed, its cache keeps the others of the window.
    assert held.count((16 - 1) * a_layer) == LAYERS - full


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("jamba", {"intermediate_size": 32, "num_experts": 4, "mamba_d_state": 6,
                   "mamba_d_conv": 3}),
        ("qwen3-next", {"head_dim": 24, "intermediate_size": 32, "num_experts": 4,
                        "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                        "shared_expert_intermediate_size": 16, "linear_num_key_heads": 2,
                        "linear_num_value_heads": 4, "linear_key_head_dim": 8,
                        "linear_value_head_dim": 12}),
    ],
)  # fmt: skip
def test_the_states_are_those_of_the_models_own_cache(kind, sizes, tmp_path):
    shape, cache = cached(kind, tmp_path, 20, **TINY | sizes)
    (state,) = (each for each in settled_layers(shape) if each.kind == "state")
    found = [layer for layer in cache.layers if not hasattr(layer, "keys")]
    assert len(found) == state.layers
    for layer in found:
        (recurrent,), (inputs,) = layer.recurrent_states.values(), layer.conv_states.values()
        assert recurrent.numel() == state.inner * state.state_dim
        # Theirs keeps as many inputs as the convolution has weights; one less is needed.
        assert inputs.numel() == state.conv_channels * state.conv_kernel
