"""What the config.json of published models says, by the name of their file in conf/model.

Only what a reader has to look at, and a few keys of each sort that it has to pass by.  Ministral's
is as transformers 5 has it: the published one is a Mistral's, of 32,768 tokens in which no window
shows.
"""

from typing import Any


def _file(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": model_type,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0",
        "use_cache": True,
        "initializer_range": 0.02,
        **values,
    }


def _sizes(
    hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, context: int
) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "max_position_embeddings": context,
    }


ALTERNATING = ["sliding_attention", "full_attention"]

PUBLISHED: dict[str, dict[str, Any]] = {
    "llama-3-8b": _file(
        "Llama", "llama", **_sizes(4096, 32, 32, 8, 14336, 128256, 8192), rms_norm_eps=1e-5,
        rope_theta=500000.0, attention_bias=False, tie_word_embeddings=False, rope_scaling=None,
    ),
    "qwen2.5-7b": _file(
        "Qwen2", "qwen2", **_sizes(3584, 28, 28, 4, 18944, 152064, 32768), rms_norm_eps=1e-6,
        rope_theta=1000000.0, use_sliding_window=False, sliding_window=131072,
        max_window_layers=28, tie_word_embeddings=False, hidden_act="silu",
    ),
    "qwen3-8b": _file(
        "Qwen3", "qwen3", **_sizes(4096, 36, 32, 8, 12288, 151936, 40960), head_dim=128,
        rms_norm_eps=1e-6, rope_theta=1000000, use_sliding_window=False, sliding_window=None,
        max_window_layers=36, attention_bias=False, tie_word_embeddings=False,
    ),
    "qwen3-30b-a3b": _file(
        "Qwen3Moe", "qwen3_moe", **_sizes(2048, 48, 32, 4, 6144, 151936, 40960), head_dim=128,
        rms_norm_eps=1e-6, rope_theta=1000000.0, num_experts=128, num_experts_per_tok=8,
        moe_intermediate_size=768, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True,
        use_sliding_window=False, max_window_layers=48, attention_bias=False,
    ),
    "opt-13b": {
        "architectures": ["OPTForCausalLM"], "model_type": "opt", "torch_dtype": "float16",
        "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "ffn_dim": 20480,
        "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 5120,
        "activation_function": "relu", "do_layer_norm_before": True, "dropout": 0.1,
        "layerdrop": 0.0, "init_std": 0.02, "activation_dropout": 0.0, "prefix": "</s>",
        "_remove_final_layer_norm": False,
    },
    "gpt-oss-20b": _file(
        "GptOss", "gpt_oss", **_sizes(2880, 24, 64, 8, 2880, 201088, 131072), head_dim=64,
        rms_norm_eps=1e-5, rope_theta=150000, attention_bias=True, sliding_window=128,
        num_local_experts=32, num_experts_per_tok=4, experts_per_token=4, swiglu_limit=7.0,
        layer_types=ALTERNATING * 12, tie_word_embeddings=False, initial_context_length=4096,
        quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    ),
    "gemma-2-9b": _file(
        "Gemma2", "gemma2", **_sizes(3584, 42, 16, 8, 14336, 256000, 8192), head_dim=256,
        rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=4096, sliding_window_size=4096,
        query_pre_attn_scalar=256, attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
        attention_bias=False, cache_implementation="hybrid", hidden_activation="gelu",
    ),
    "gemma-3-27b": {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "torch_dtype": "bfloat16", "image_token_index": 262144, "mm_tokens_per_image": 256,
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62,
            "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
            "intermediate_size": 21504, "sliding_window": 1024, "query_pre_attn_scalar": 168,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
    },
    "llama-4-scout": {
        "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4",
        "torch_dtype": "bfloat16", "boi_token_index": 200080, "tie_word_embeddings": False,
        "vision_config": {"model_type": "llama4_vision_model"},
        "text_config": {
            "model_type": "llama4_text", **_sizes(5120, 48, 40, 8, 8192, 202048, 10485760),
            "head_dim": 128, "intermediate_size_mlp": 16384, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "attention_chunk_size": 8192, "num_local_experts": 16,
            "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "no_rope_layers": [],
            "use_qk_norm": True, "attention_bias": False, "for_llm_compressor": False,
            "torch_dtype": "bfloat16", "attn_temperature_tuning": 4,
        },
    },
    "deepseek-v3": _file(
        "DeepseekV3", "deepseek_v3", **_sizes(7168, 61, 128, 128, 18432, 129280, 163840),
        rms_norm_eps=1e-6, rope_theta=10000, moe_intermediate_size=2048, n_routed_experts=256,
        n_shared_experts=1, num_experts_per_tok=8, first_k_dense_replace=3, moe_layer_freq=1,
        q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
        v_head_dim=128, num_nextn_predict_layers=1, n_group=8, topk_group=4, scoring_func="sigmoid",
        tie_word_embeddings=False, attention_bias=False, ep_size=1,
        quantization_config={"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128],
                             "activation_scheme": "dynamic"},
    ),
    "deepseek-v2-lite": _file(
        "DeepseekV2", "deepseek_v2", **_sizes(2048, 27, 16, 16, 10944, 102400, 163840),
        rms_norm_eps=1e-6, rope_theta=10000, moe_intermediate_size=1408, n_routed_experts=64,
        n_shared_experts=2, num_experts_per_tok=6, first_k_dense_replace=1, moe_layer_freq=1,
        q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
        v_head_dim=128, aux_loss_alpha=0.001, seq_aux=True, topk_method="greedy",
        tie_word_embeddings=False, attention_bias=False,
    ),
    "jamba-1.5-mini": _file(
        "Jamba", "jamba", **_sizes(4096, 32, 32, 8, 14336, 65536, 262144), rms_norm_eps=1e-6,
        attn_layer_period=8, attn_layer_offset=4, expert_layer_period=2, expert_layer_offset=1,
        num_experts=16, num_experts_per_tok=2, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2,
        mamba_dt_rank=256, mamba_conv_bias=True, mamba_proj_bias=False, sliding_window=None,
        tie_word_embeddings=False, num_logits_to_keep=1, use_mamba_kernels=True,
    ),
    "qwen3-next-80b-a3b": _file(
        "Qwen3Next", "qwen3_next", **_sizes(2048, 48, 16, 2, 5120, 151936, 262144), head_dim=256,
        rms_norm_eps=1e-6, rope_theta=10000000, partial_rotary_factor=0.25,
        full_attention_interval=4, linear_conv_kernel_dim=4, linear_key_head_dim=128,
        linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
        num_experts=512, num_experts_per_tok=10, moe_intermediate_size=512,
        shared_expert_intermediate_size=512, decoder_sparse_step=1, mlp_only_layers=[],
        tie_word_embeddings=False, attention_bias=False, norm_topk_prob=True,
        use_sliding_window=False,
    ),
    "llama-3.2-11b-vision": {
        "architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama",
        "torch_dtype": "bfloat16", "image_token_index": 128256,
        "vision_config": {"model_type": "mllama_vision_model", "image_size": 560, "patch_size": 14,
                          "max_num_tiles": 4},
        "text_config": {
            "model_type": "mllama_text_model", **_sizes(4096, 40, 32, 8, 14336, 128256, 131072),
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
            "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "pruned_heads": {},
            "add_cross_attention": False, "is_encoder_decoder": False, "tie_encoder_decoder": False,
        },
    },
    "ministral-8b": _file(
        "Ministral", "ministral", **_sizes(4096, 36, 32, 8, 12288, 131072, 131072), head_dim=128,
        rms_norm_eps=1e-5, rope_theta=100000000.0, sliding_window=32768, tie_word_embeddings=False,
        layer_types=["full_attention", *["sliding_attention"] * 3] * 9,
    ),
}  # fmt: skip
