"""Shapes of models whose layers have heads and one feed-forward, from the keys of a config.json.

A key that is absent counts as what the model's class in transformers makes of that, which is what
published files rely on; where a class has no such value the key is required.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.cost.hf.groups import FULL, SLIDING, grouped, layer_types, window, windowed
from harness.cost.hf.values import Values
from harness.cost.shapes import ModelShape


def plain(
    values: Values,
    heads_default: int | None = None,
    kv_default: int | None = None,
    eps_default: float = 1e-6,
    **differing: Any,
) -> ModelShape:
    """Return what a llama's and its kin's files have in common; `differing` are fields as they are.

    Without `head_dim` the heads share the hidden size.  The defaults are of the numbers of heads
    and of `rms_norm_eps`.
    """
    hidden = values.size("hidden_size")
    heads = values.size("num_attention_heads", heads_default)
    fields: dict[str, Any] = {
        "family": "llama",
        "layers": values.layers(),
        "hidden": hidden,
        "heads": heads,
        "rope_theta": rope_theta(values),
        **differing,
    }
    reading: dict[str, Callable[[], Any]] = {
        "kv_heads": lambda: values.size("num_key_value_heads", kv_default),
        "head_dim": lambda: _head_dim(values, hidden, heads),
        "ffn": lambda: values.size("intermediate_size"),
        "vocab": lambda: values.size("vocab_size"),
        "max_context": lambda: values.size("max_position_embeddings"),
        "norm_eps": lambda: values.number("rms_norm_eps", eps_default),
        "tied_embeddings": lambda: values.flag("tie_word_embeddings", False),
    }
    fields |= {name: read() for name, read in reading.items() if name not in fields}
    return ModelShape(**fields)


def _head_dim(values: Values, hidden: int, heads: int) -> int:
    if values.get("head_dim") is None and hidden % heads:
        raise values.wrong("hidden_size", f"a multiple of the {heads} heads, or head_dim beside it")
    return values.size("head_dim", hidden // heads)


def rope_theta(values: Values, default: float = 10000.0) -> float:
    """Return the base of the rotary frequencies, of layers without a window where they differ."""
    default = values.number("rope_theta", default)
    if values.get("rope_parameters") is None:
        return default
    place = values.inner("rope_parameters")
    if place.get(FULL) is not None:
        place = place.inner(FULL)
    return place.number("rope_theta", default)


def opt(values: Values) -> ModelShape:
    """OPT: arXiv 2205.01068."""
    hidden, heads = values.size("hidden_size"), values.size("num_attention_heads")
    values.only("word_embed_proj_dim", hidden, hidden)
    values.only("do_layer_norm_before", True, True)
    values.only("enable_bias", True, True)
    values.only("layer_norm_elementwise_affine", True, True)
    values.only("_remove_final_layer_norm", False, False)
    values.only("tie_word_embeddings", True, True)
    values.get("activation_function")
    return ModelShape(
        family="opt",
        layers=values.layers(),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=_head_dim(values, hidden, heads),
        ffn=values.size("ffn_dim"),
        vocab=values.size("vocab_size"),
        max_context=values.size("max_position_embeddings"),
        gated_ffn=False,
        tied_embeddings=True,
        learned_positions=True,
        linear_bias=True,
        norm_eps=1e-5,  # torch's default; OPT's configuration has no field for it
    )


def llama(values: Values) -> ModelShape:
    values.only("attention_bias", False, False)
    values.only("mlp_bias", False, False)
    return plain(values, kv_default=values.size("num_attention_heads"))


def mistral(values: Values) -> ModelShape:
    values.stated("sliding_window")
    return one_window(values)


def one_window(values: Values, **differing: Any) -> ModelShape:
    """Mistral, Mixtral and Phi-3: one window for all layers, or none."""
    values.only("attention_bias", False, False)
    shape = plain(values, **differing)
    if values.get("sliding_window") is not None:
        layer = window(values, "sliding_window", shape.max_context)
        shape.layer_groups = grouped([layer] * shape.layers)
    return shape


def phi3(values: Values) -> ModelShape:
    values.only("mlp_bias", False, False)
    values.only("lm_head_bias", False, False)
    values.only("full_attn_mod", 1, 1)
    return one_window(values, kv_default=values.size("num_attention_heads"), eps_default=1e-5)


def ministral(values: Values) -> ModelShape:
    shape = plain(values)
    types = layer_types(values, shape.layers, None)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def _qwen_windows(values: Values, shape: ModelShape) -> ModelShape:
    """Windows in the layers from `max_window_layers` on, if `use_sliding_window`."""
    uses = values.flag("use_sliding_window", False)
    values.get("sliding_window")  # of no layer, if it is not used or those layers are not there
    first = values.size("max_window_layers", 28, least=0)
    types = layer_types(values, shape.layers, lambda at: SLIDING if uses and at >= first else FULL)
    if SLIDING in types and not uses:
        raise values.wrong("use_sliding_window", f"true beside {SLIDING} in layer_types")
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def qwen2(values: Values) -> ModelShape:
    return _qwen_windows(values, plain(values, qkv_bias=True))


def qwen3(values: Values) -> ModelShape:
    values.only("attention_bias", False, False)
    head_dim = values.size("head_dim", 128)
    return _qwen_windows(values, plain(values, qk_norm=True, head_dim=head_dim))


def gemma2(values: Values) -> ModelShape:
    """A window in every second layer, the first too."""
    return _gemma(values, 256000, 8192, 2)


def gemma3(values: Values) -> ModelShape:
    """A window in all but every `sliding_window_pattern`th layer."""
    pattern = values.size(values.spelled("sliding_window_pattern", "_sliding_window_pattern"), 6)
    shape = _gemma(values, 262208, 131072, pattern)
    shape.qk_norm, shape.rope_theta = True, rope_theta(values, 1_000_000.0)
    shape.family = "gemma3"
    return shape


def _gemma(values: Values, vocab: int, context: int, pattern: int) -> ModelShape:
    values.only("attention_bias", False, False)
    values.only("use_bidirectional_attention", False, False)
    shape = plain(
        values,
        heads_default=8,
        kv_default=4,
        vocab=values.size("vocab_size", vocab),
        max_context=values.size("max_position_embeddings", context),
        head_dim=values.size("head_dim", 256),
        tied_embeddings=values.flag("tie_word_embeddings", True),
        post_norms=True,
    )
    types = layer_types(values, shape.layers, lambda at: SLIDING if (at + 1) % pattern else FULL)
    scalar = values.number("query_pre_attn_scalar", 256.0)
    shape.query_scalar = 0.0 if scalar == shape.head_dim else scalar
    size = values.size("sliding_window")  # the classes' own is not that of published models
    values.only("sliding_window_size", size, size)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape
