"""A smallest checkpoint, written by hand so that a test can spoil it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from harness.executors.model.decoder import DecoderError, shape_of_checkpoint
from tests.executors.model.decoder.cases import build

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 20,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
TENSORS = {
    "model.embed_tokens.weight": (20, 16),
    "model.norm.weight": (16,),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.layers.0.post_attention_layernorm.weight": (16,),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.self_attn.k_proj.weight": (8, 16),
    "model.layers.0.self_attn.v_proj.weight": (8, 16),
    "model.layers.0.self_attn.o_proj.weight": (16, 16),
    "model.layers.0.mlp.gate_proj.weight": (24, 16),
    "model.layers.0.mlp.up_proj.weight": (24, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 24),
}


def config(directory, base=CONFIG, **changes):
    (directory / "config.json").write_text(json.dumps({**base, **changes}))


def weights(directory, name="model.safetensors", **changes):
    shapes = {**TENSORS, **{key.replace("__", "."): shape for key, shape in changes.items()}}
    save_file({key: torch.ones(s) for key, s in shapes.items() if s}, directory / name)


def error(directory, match, action=None):
    """Return the one line of the error of `action`, by default of building the checkpoint."""
    run = action or (lambda: build(shape_of_checkpoint(directory), directory))
    with pytest.raises(DecoderError, match=match) as caught:
        run()
    text = str(caught.value)
    assert "\n" not in text
    assert str(directory) in text
    return text
