"""Tiny random checkpoints, written by Hugging Face transformers, and the models they came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

#: what all of the llama family share; head_dim is not hidden / heads, two query heads a KV head
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
}
SHARED = {
    "vocab_size": 131,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
OPT = {
    "hidden_size": 64,
    "ffn_dim": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "word_embed_proj_dim": 64,
}
#: five layers with a window and a full one, then five more: 1 in 6 is full
GEMMA = {
    **LLAMA,
    "num_hidden_layers": 7,
    "query_pre_attn_scalar": 21,  # not the size of a head
    "sliding_window": 6,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": {"rope_theta": 5000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
}
GPT_OSS = {
    **LLAMA,
    "num_hidden_layers": 4,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 6,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
}
#: kind -> (name of the classes, what its configuration sets beside the above)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**LLAMA, "tie_word_embeddings": False}),
    "llama-tied": ("Llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama-mha": ("Llama", {**LLAMA, "num_key_value_heads": 4, "head_dim": 16}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": None}),
    # Qwen2 has no head_dim of its own.
    "qwen2": ("Qwen2", {k: v for k, v in LLAMA.items() if k != "head_dim"}),
    "qwen3": ("Qwen3", {**LLAMA, "tie_word_embeddings": True}),
    "opt": ("OPT", OPT),
    "gemma3": ("Gemma3", GEMMA),
    "gpt_oss": ("GptOss", GPT_OSS),
}
#: names of configuration classes that are not the models'
CONFIGS = {"Gemma3": "Gemma3TextConfig"}


def tiny_checkpoint(kind: str, directory: Path, seed: int, max_shard_size: str = "1GB") -> Any:
    """Write a checkpoint of `kind`, one of `KINDS`, to `directory`; return the model, in float32.

    Matrices keep the scale of what passes through them, so that logits differ clearly; biases and
    norms are random too, so that leaving one out shows.  No token ends a sequence.  Skips the test
    without transformers; never uses a network.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    family, settings = KINDS[kind]
    if family != "OPT" and "rope_parameters" not in settings:
        rope = {"rope_theta": 5000.0, "rope_type": "default"}
        settings = {**settings, "rope_parameters": rope}
    config_class = CONFIGS.get(family, f"{family}Config")
    config = getattr(transformers, config_class)(**SHARED, **settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_((family != "Gemma3") + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            else:
                spread = 2.0 if "embed" in name or "lm_head" in name else 1.0
                parameter.copy_(spread * noise / parameter.shape[-1] ** 0.5)
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    return model
