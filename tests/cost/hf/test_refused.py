"""A config.json that cannot be followed is one line: the file, the key, what is allowed."""

import json

import pytest

from harness.cost import CostError
from harness.cost.hf.read import read_shape
from tests.cost.hf.published import PUBLISHED


def refusal(tmp_path, name, changes, inner=False):
    values = json.loads(json.dumps(PUBLISHED[name]))
    place = values["text_config"] if inner else values
    for key, value in changes.items():
        if value == "absent":
            del place[key]
        else:
            place[key] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(CostError) as caught:
        read_shape(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("llama-3-8b", {"attention_sinks": 4}, "attention_sinks is not known of a llama"),
        ("llama-3-8b", {"sliding_window": 4096}, "sliding_window is not known of a llama"),
        ("llama-3-8b", {"model_type": "gpt2"}, 'model_type is "gpt2"; allowed: one of deepseek_v2'),
        ("llama-3-8b", {"model_type": ["llama"]}, 'model_type is ["llama"]; allowed: one of'),
        ("llama-3-8b", {"torch_dtype": {"a": 1}}, 'torch_dtype is {"a": 1}; allowed: one of'),
        ("deepseek-v3", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [0]}},
         "weight_block_size is [0]; allowed: a list of integers of at least 1"),
        ("qwen3-30b-a3b", {"mlp_only_layers": 3}, "mlp_only_layers is 3; allowed: a list of int"),
        ("llama-3-8b", {"model_type": "absent"}, "model_type is missing; allowed"),
        ("llama-3-8b", {"hidden_size": "absent"}, "hidden_size is missing; allowed: an integer"),
        ("llama-3-8b", {"num_hidden_layers": 1.5}, "num_hidden_layers is 1.5; allowed"),
        ("llama-3-8b", {"attention_bias": True}, "attention_bias is true; allowed: false"),
        ("llama-3-8b", {"torch_dtype": "absent"}, "allowed: float32, float16, bfloat16, or model."),
        ("llama-3-8b", {"torch_dtype": "int8"}, 'torch_dtype is "int8"; allowed'),
        ("llama-3-8b", {"tie_word_embeddings": 1}, "tie_word_embeddings is 1; allowed: true or"),
        ("llama-3-8b", {"quantization_config": {"quant_method": "awq", "bits": 4}},
         'quantization_config.quant_method is "awq"; allowed: fp8, or mxfp4'),
        ("llama-3-8b", {"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4 of a mixture"),
        ("llama-3-8b", {"quantization_config": "fp8"}, "quantization_config is"),
        ("qwen2.5-7b", {"num_key_value_heads": "absent"}, "num_key_value_heads is missing"),
        ("qwen2.5-7b", {"layer_types": ["full_attention"]}, "allowed: 28 of full_attention, "),
        ("qwen2.5-7b", {"layer_types": ["linear_attention"] * 28}, 'is "linear_attention"; '),
        ("qwen2.5-7b", {"layer_types": ["local"] * 28}, "layer_types is "),
        ("qwen2.5-7b", {"layer_types": ["sliding_attention"] * 28},
         "use_sliding_window is false; allowed: true beside sliding_attention"),
        ("qwen2.5-7b", {"num_hidden_layers": 10**30}, "; allowed: at most 10000"),
        ("llama-3-8b", {"hidden_size": 4100}, "hidden_size is 4100; allowed: a multiple of the 32"),
        ("llama-3-8b", {"model_type": "mistral"}, "sliding_window is missing"),
        ("llama-3-8b", {"pruned_heads": {"0": [1]}}, 'pruned_heads is {"0": [1]}; allowed: {}'),
        ("llama-3-8b", {"is_encoder_decoder": True}, "is_encoder_decoder is true; allowed: false"),
        ("qwen3-next-80b-a3b", {"use_sliding_window": True}, "use_sliding_window is true"),
        ("llama-3-8b", {"rope_parameters": 3}, "rope_parameters is 3; allowed: an object"),
        ("llama-3-8b", {"rope_parameters": {"rope_theta": 0}}, "rope_parameters.rope_theta is 0"),
        ("qwen3-30b-a3b", {"quantization_config": {"quant_method": "fp8", "bits": 4}},
         "quantization_config.bits is not known of a fp8"),
        *[("qwen3-30b-a3b",
           {"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": names}},
           "quantization_config.modules_to_not_convert is ")
          for names in (["lm_head", "model.layers.0.self_attn.q_proj"], "lm_head", 5)],
        ("qwen3-30b-a3b", {"use_sliding_window": True}, "use_sliding_window is true"),
        ("gpt-oss-20b", {"sliding_window": "absent"}, "sliding_window is missing"),
        ("gpt-oss-20b", {"sliding_window": -1}, "sliding_window is -1"),
        ("gpt-oss-20b", {"experts_per_token": 2}, "experts_per_token is 2; allowed: 4"),
        ("gemma-2-9b", {"sliding_window_size": 9}, "sliding_window_size is 9; allowed: 4096"),
        ("gemma-2-9b", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("ministral-8b", {"sliding_window": "absent"}, "sliding_window is missing"),
        ("ministral-8b", {"sliding_window": None}, "sliding_window is None"),
        ("ministral-8b", {"layer_types": "absent"}, "layer_types is missing; allowed: 36 of"),
        ("deepseek-v3", {"moe_layer_freq": 2}, "moe_layer_freq is 2; allowed: 1"),
        ("deepseek-v3", {"index_topk": 2048}, "index_topk is not known of a deepseek_v3"),
        ("deepseek-v3", {"kv_lora_rank": "absent"}, "kv_lora_rank is missing"),
        *[("deepseek-v3", {key: "absent"}, f"{key} is missing")
          for key in ("q_lora_rank", "n_shared_experts", "first_k_dense_replace")],
        ("jamba-1.5-mini", {"mamba_proj_bias": True}, "mamba_proj_bias is true"),
        ("jamba-1.5-mini", {"attn_layer_period": 0}, "attn_layer_period is 0"),
        ("qwen3-next-80b-a3b", {"layer_types": ["chunked_attention"] * 48},
         "allowed: full_attention, linear_attention"),
        ("opt-13b", {"do_layer_norm_before": False}, "do_layer_norm_before is false"),
        ("gemma-3-27b", {"audio_config": {}}, "audio_config is not known of a gemma3"),
        ("gemma-3-27b", {"tie_word_embeddings": False}, "tie_word_embeddings is false; allowed: t"),
        ("gemma-3-27b", {"text_config": "absent"}, "text_config is missing; allowed: an object"),
        ("llama-3.2-11b-vision", {"vision_config": {}}, "vision_config.image_size is missing"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_its_name(name, changes, text, tmp_path):
    assert text in refusal(tmp_path, name, changes)


def test_a_key_of_the_language_model_is_named_with_its_place(tmp_path):
    message = refusal(tmp_path, "gemma-3-27b", {"kv_shared_layers": 3}, inner=True)
    assert message.startswith("text_config.kv_shared_layers is not known of a gemma3")
    message = refusal(tmp_path, "llama-4-scout", {"no_rope_layers": [1, 0]}, inner=True)
    assert message.startswith("text_config.no_rope_layers is [1, 0]; allowed: a 0 or a 1 for each")
    message = refusal(tmp_path, "llama-4-scout", {"attention_chunk_size": "absent"}, inner=True)
    assert message.startswith("text_config.attention_chunk_size is missing")
    message = refusal(tmp_path, "llama-4-scout", {"moe_layers": [1, 99]}, inner=True)
    assert message.startswith("text_config.moe_layers is [1, 99]; allowed: numbers of the 48 layer")
    message = refusal(tmp_path, "gemma-3-27b", {"_sliding_window_pattern": "x"}, inner=True)
    assert message.startswith("text_config._sliding_window_pattern is 'x'")
    message = refusal(tmp_path, "gemma-3-27b", {"model_type": "gemma2"}, inner=True)
    assert message.startswith("text_config.model_type")


@pytest.mark.parametrize("text", ["", "[1]", "{'a': 1}"])
def test_a_file_that_is_no_object(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CostError, match="not "):
        read_shape(tmp_path)
