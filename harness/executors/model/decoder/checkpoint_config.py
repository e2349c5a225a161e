"""The shape of a checkpoint, from its config.json, and what of it no decoder here computes.

Reads what transformers 4 writes (`rope_theta`, `rope_scaling`, `torch_dtype`) and what transformers
5 writes (`rope_parameters`, `dtype`).  A value that changes the forward pass in a way the decoder
does not follow is an error, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from harness.cost.hf import dense, mixed
from harness.cost.hf.groups import FULL, SLIDING
from harness.cost.hf.read import CONFIG, DTYPE_BYTES
from harness.cost.hf.values import Values
from harness.cost.shapes import CostError, ModelShape
from harness.executors.model.decoder.errors import DecoderError
from harness.executors.model.decoder.gemma3 import LOCAL_THETA
from harness.executors.model.decoder.gpt_oss import ALPHA, LIMIT, YARN
from harness.executors.model.decoder.layers import FULL_EVERY, layer_windows

#: fields of a shape that do not change what the forward pass computes
IRRELEVANT = {"name", "dtype_bytes", "max_context", "kv_dtype", "path"}
#: `rope_type` (before: `type`) of plain rotary embeddings
PLAIN_ROPE = (None, "default")


def shape_of_checkpoint(directory: Path) -> ModelShape:
    """Return the shape that `directory`/config.json describes, named after the directory.

    Raises `DecoderError`, one line that names the file and what is allowed, for a missing or
    malformed file, another architecture, and any option that the decoder does not compute.
    """
    directory = Path(directory)
    try:
        return _shape(Values(directory / CONFIG), directory)
    except CostError as error:
        raise DecoderError(str(error)) from error


def _shape(values: Values, directory: Path) -> ModelShape:
    architecture = _architecture(values)
    if values.get("quantization_config") is not None:
        raise DecoderError(f"{values.path}: quantized weights; allowed: no quantization_config")
    dtype = str(values.get("dtype", values.get("torch_dtype", "float32")))
    if dtype not in DTYPE_BYTES:
        raise DecoderError(f"{values.path}: dtype is {dtype}; allowed: {', '.join(DTYPE_BYTES)}")
    shape = READERS[architecture](values, architecture)
    shape.name, shape.dtype_bytes = directory.resolve().name, DTYPE_BYTES[dtype]
    return shape


def check_shape(shape: ModelShape, directory: Path) -> None:
    """Raise `DecoderError` if a decoder of `shape` would not compute what the checkpoint means."""
    stored = shape_of_checkpoint(directory)
    for field in fields(ModelShape):
        mine, its = getattr(shape, field.name), getattr(stored, field.name)
        relevant = field.name not in IRRELEVANT and not (
            field.name == "rope_theta" and stored.learned_positions
        )
        if relevant and mine != its:
            raise DecoderError(
                f"{directory / CONFIG}: {field.name} is {its} there and {mine} in the model "
                f"{shape.name or 'given'}"
            )


def _architecture(values: Values) -> str:
    named = values.get("architectures", [])
    if isinstance(named, list) and len(named) == 1 and str(named[0]) in READERS:
        return named[0]
    raise DecoderError(
        f"{values.path}: architectures is {json.dumps(named)}; allowed: one of {', '.join(READERS)}"
    )


def _llama(values: Values, architecture: str) -> ModelShape:
    values.only("hidden_act", "silu", "silu")
    values.only("attention_bias", False, False)
    values.only("mlp_bias", False, False)
    _check_rope(values)
    # Only Llama's own class falls back to one KV head a query head; the others' defaults differ.
    plain_heads = architecture == "LlamaForCausalLM"
    qwen3 = architecture == "Qwen3ForCausalLM"
    shape = dense.plain(
        values,
        kv_default=values.size("num_attention_heads") if plain_heads else None,
        qkv_bias=architecture == "Qwen2ForCausalLM",
        qk_norm=qwen3,
        norm_eps=values.number("rms_norm_eps"),  # computed with, so no class's default will do
        **({"head_dim": values.size("head_dim")} if qwen3 else {}),
    )
    _check_window(values, architecture, shape.max_context)
    return shape


def _gemma3(values: Values, architecture: str) -> ModelShape:
    values.only("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh")
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        values.only(key, None, None)
    shape = dense.gemma3(values)
    values.only("rope_scaling", None, None)
    if values.get("rope_parameters") is None:
        values.only("rope_local_base_freq", LOCAL_THETA, LOCAL_THETA)
    else:
        kinds = values.inner("rope_parameters")
        full, local = kinds.inner("full_attention"), kinds.inner("sliding_attention")
        for given in (full, local):
            given.only("rope_type", "default", "default")
        shape.rope_theta = full.number("rope_theta")
        local.only("rope_theta", LOCAL_THETA, LOCAL_THETA)
    if values.get("layer_types") is None:
        every = FULL_EVERY["gemma3"]
        values.only(values.spelled("sliding_window_pattern", "_sliding_window_pattern"), every, 6)
    _check_order(values, shape)
    return shape


def _gpt_oss(values: Values, architecture: str) -> ModelShape:
    values.only("hidden_act", "silu", "silu")
    values.only("swiglu_alpha", ALPHA, ALPHA)
    values.only("swiglu_limit", LIMIT, LIMIT)
    shape = mixed.gpt_oss(values)
    shape.norm_eps = values.number("rms_norm_eps")  # as of a llama
    key = "rope_scaling" if values.get("rope_parameters") is None else "rope_parameters"
    rope = values.inner(key)
    rope.only("rope_type", "yarn", None)
    for name in ("factor", "beta_fast", "beta_slow"):
        rope.only(name, YARN[name], None)
    rope.only("original_max_position_embeddings", YARN["original"], None)
    rope.only("truncate", False, True)
    shape.rope_theta = rope.number("rope_theta", values.get("rope_theta", 150_000.0))
    _check_order(values, shape)
    return shape


def _opt(values: Values, architecture: str) -> ModelShape:
    values.only("activation_function", "relu", "relu")
    return dense.opt(values)


def _check_order(values: Values, shape: ModelShape) -> None:
    """Refuse windows in other layers than the decoder's; a shape only says in how many."""
    types = [FULL if window is None else SLIDING for window in layer_windows(shape)]
    values.only("layer_types", types, types)


def _check_rope(values: Values) -> None:
    """Refuse rotary embeddings that are not plain."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = values.get(key, {})
        if not isinstance(rope, dict):
            raise values.wrong(key, "null, or {}")
        kind = rope.get("rope_type", rope.get("type"))
        if any(isinstance(inner, dict) for inner in rope.values()):
            kind = sorted(rope)  # parameters of their own for some of the layers
        if kind not in PLAIN_ROPE:
            raise DecoderError(
                f"{values.path}: {key} has type {json.dumps(kind)}; allowed: none, or default"
            )
    inner = values.get("rope_parameters", {})
    for factor in (values.get("partial_rotary_factor"), inner.get("partial_rotary_factor")):
        if factor not in (None, 1.0):
            raise DecoderError(
                f"{values.path}: partial_rotary_factor is {json.dumps(factor)}; allowed: 1.0"
            )


def _check_window(values: Values, architecture: str, context: int) -> None:
    """Attention here reads the whole context, so a window must not be shorter than that."""
    if architecture != "MistralForCausalLM" and not values.get("use_sliding_window", False):
        return
    values.stated("sliding_window")
    window = values.size("sliding_window", context)
    if window < context:
        raise DecoderError(
            f"{values.path}: sliding_window is {window}, shorter than max_position_embeddings "
            f"({context}); allowed: null, or at least that (lower max_position_embeddings to it)"
        )


READERS: dict[str, Callable[[Values, str], ModelShape]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _llama,
    "Qwen2ForCausalLM": _llama,
    "Qwen3ForCausalLM": _llama,
    "OPTForCausalLM": _opt,
    "Gemma3ForCausalLM": _gemma3,
    "GptOssForCausalLM": _gpt_oss,
}
