"""A config.json that no decoder here computes is one line: file, option, what is allowed."""

import pytest

from harness.executors.model.decoder import shape_of_checkpoint
from tests.executors.model.decoder.cases import build
from tests.executors.model.decoder.checkpoints import tiny_checkpoint
from tests.executors.model.decoder.spoilt import CONFIG, config, error

OPT = {
    "architectures": ["OPTForCausalLM"],
    "hidden_size": 16,
    "ffn_dim": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 64,
}


GEMMA3 = {
    **CONFIG,
    "architectures": ["Gemma3ForCausalLM"],
    "num_hidden_layers": 6,
    "query_pre_attn_scalar": 8,
    "head_dim": 8,
    "sliding_window": 6,
    "rope_theta": 1e6,
}
SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.mark.parametrize("text", ["", "[1]", "{'a': 1}"])
def test_a_config_that_is_no_object(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    error(tmp_path, "config.json: not ")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "allowed: one of LlamaForCausalLM, "),
        ({"architectures": None}, r"architectures is \[\]"),
        ({"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM"),
        ({"architectures": [["LlamaForCausalLM"]]}, "allowed: one of"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 'type "llama3"; allowed: none'),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 'type "linear"; allowed: none'),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, 'type "yarn"'),
        ({"rope_scaling": "yarn"}, "rope_scaling"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        ({"rope_parameters": "default"}, 'rope_parameters is "default"; allowed: null'),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
        ({"rope_theta": float("inf")}, "rope_theta is inf; allowed: a number above 0"),
        (
            {"architectures": ["MistralForCausalLM"], "sliding_window": "64"},
            "sliding_window is '64'",
        ),
        ({"architectures": ["MistralForCausalLM"]}, "sliding_window is missing"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "full_attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "allowed: 1.0"),
        ({"rope_theta": "much"}, "rope_theta is 'much'; allowed: a number above 0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; allowed: 1.0"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"; allowed: "silu"'),
        ({"attention_bias": True}, "attention_bias is true; allowed: false"),
        ({"mlp_bias": True}, "mlp_bias is true; allowed: false"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"torch_dtype": "float8_e4m3fn"}, "allowed: float32, float16, bfloat16"),
        ({"hidden_size": None}, "hidden_size is None; allowed: an integer of at least 1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; allowed"),
        ({"vocab_size": 20.5}, "vocab_size is 20.5; allowed"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None; allowed: a number above 0"),
    ],
)
def test_a_llama_option_that_nothing_computes(change, text, tmp_path):
    config(tmp_path, **change)
    assert "config.json" in error(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"word_embed_proj_dim": 8}, "word_embed_proj_dim is 8; allowed: 16"),
        ({"do_layer_norm_before": False}, "do_layer_norm_before is false; allowed: true"),
        ({"activation_function": "gelu"}, 'allowed: "relu"'),
        ({"enable_bias": False}, "enable_bias is false"),
    ],
)
def test_an_opt_option_that_nothing_computes(change, text, tmp_path):
    config(tmp_path, OPT, **change)
    assert "config.json" in error(tmp_path, text)


def test_a_sliding_window_counts_only_if_the_context_outgrows_it(tmp_path):
    mistral = {"architectures": ["MistralForCausalLM"], "sliding_window": 32}
    config(tmp_path, **mistral)
    error(tmp_path, r"sliding_window is 32, shorter than max_position_embeddings \(64\)")
    config(tmp_path, **mistral, max_position_embeddings=32)
    assert shape_of_checkpoint(tmp_path).max_context == 32
    # Qwen2 states a window that it does not use.
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 32}
    config(tmp_path, **qwen, use_sliding_window=False)
    assert shape_of_checkpoint(tmp_path).qkv_bias
    config(tmp_path, **qwen, use_sliding_window=True)
    error(tmp_path, "sliding_window is 32")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"layer_types": [FULL, *[SLIDING] * 5]}, "layer_types is "),
        ({"sliding_window_pattern": 4}, "sliding_window_pattern is 4; allowed: 6"),
        ({"_sliding_window_pattern": 5}, "_sliding_window_pattern is 5; allowed: 6"),
    ],
)
def test_windows_in_other_layers_than_the_decoders(change, text, tmp_path):
    config(tmp_path, GEMMA3, layer_types=[*[SLIDING] * 5, FULL], sliding_window_pattern=5)
    assert [group.layers for group in shape_of_checkpoint(tmp_path).layer_groups] == [5, 1]
    config(tmp_path, GEMMA3, **change)
    error(tmp_path, text)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    tiny_checkpoint("opt", tmp_path, seed=0)
    shape = shape_of_checkpoint(tmp_path)
    shape.norm_eps = 1e-6
    error(
        tmp_path, "norm_eps is 1e-05 there and 1e-06 in the model", lambda: build(shape, tmp_path)
    )
