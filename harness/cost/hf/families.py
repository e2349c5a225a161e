"""The shape of each kind of model, from the keys that its config.json has.

A key that is absent counts as what the model's class in transformers makes of that, which is what
published files rely on; where a class has no such value the key is required.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.cost.hf import mixtures
from harness.cost.hf.groups import FULL, grouped, layer_types, window, windowed
from harness.cost.hf.values import Values
from harness.cost.layers import LayerSpec
from harness.cost.shapes import ModelShape

SLIDING = "sliding_attention"
#: of Llama 3.2 11B Vision, where its file does not say
CROSS_LAYERS = [3, 8, 13, 18, 23, 28, 33, 38]


def plain(
    values: Values,
    heads_default: int | None = None,
    kv_default: int | None = None,
    **differing: Any,
) -> ModelShape:
    """Return what a llama's and its kin's files have in common; `differing` are fields as they are.

    Without `head_dim` the heads share the hidden size.  The defaults are of the numbers of heads.
    """
    hidden = values.size("hidden_size")
    heads = values.size("num_attention_heads", heads_default)
    fields: dict[str, Any] = {
        "family": "llama",
        "layers": values.size("num_hidden_layers"),
        "hidden": hidden,
        "heads": heads,
        "rope_theta": rope_theta(values),
        **differing,
    }
    reading: dict[str, Callable[[], Any]] = {
        "kv_heads": lambda: values.size("num_key_value_heads", kv_default),
        "head_dim": lambda: values.size("head_dim", hidden // heads),
        "ffn": lambda: values.size("intermediate_size"),
        "vocab": lambda: values.size("vocab_size"),
        "max_context": lambda: values.size("max_position_embeddings"),
        "norm_eps": lambda: values.number("rms_norm_eps"),
        "tied_embeddings": lambda: values.flag("tie_word_embeddings", False),
    }
    fields |= {name: read() for name, read in reading.items() if name not in fields}
    return ModelShape(**fields)


def rope_theta(values: Values, default: float = 10000.0) -> float:
    """Return the base of the rotary frequencies, of layers without a window where they differ."""
    inner = values.get("rope_parameters", {})
    if isinstance(inner, dict) and isinstance(inner.get(FULL), dict):
        inner = inner[FULL]
    given = inner.get("rope_theta") if isinstance(inner, dict) else None
    return values.positive("rope_theta", given or values.get("rope_theta", default))


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
        layers=values.size("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
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


def mistral(values: Values, **differing: Any) -> ModelShape:
    """Mistral, Mixtral and Phi-3: one window for all layers, or none."""
    values.only("attention_bias", False, False)
    shape = plain(values, **differing)
    layer = window(values, "sliding_window", shape.max_context)
    shape.layer_groups = grouped([layer] * shape.layers)
    return shape


def phi3(values: Values) -> ModelShape:
    values.only("mlp_bias", False, False)
    values.only("lm_head_bias", False, False)
    values.only("full_attn_mod", 1, 1)
    return mistral(values, kv_default=values.size("num_attention_heads"))


def ministral(values: Values) -> ModelShape:
    shape = plain(values)
    types = layer_types(values, shape.layers, None)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def mixtral(values: Values) -> ModelShape:
    shape = mistral(values)
    shape.experts = values.size("num_local_experts")
    shape.active_experts = values.size("num_experts_per_tok")
    return shape


def _qwen_windows(values: Values, shape: ModelShape) -> ModelShape:
    """Windows in the layers from `max_window_layers` on, if `use_sliding_window`."""
    uses = values.flag("use_sliding_window", False)
    if not uses:
        values.get("sliding_window")
    first = values.size("max_window_layers", 28, least=0)
    types = layer_types(values, shape.layers, lambda at: SLIDING if uses and at >= first else FULL)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def qwen2(values: Values) -> ModelShape:
    return _qwen_windows(values, plain(values, qkv_bias=True))


def qwen3(values: Values) -> ModelShape:
    values.only("attention_bias", False, False)
    head_dim = values.size("head_dim", 128)
    return _qwen_windows(values, plain(values, qk_norm=True, head_dim=head_dim))


def qwen3_moe(values: Values) -> ModelShape:
    values.only("attention_bias", False, False)
    values.only("use_sliding_window", False, False)
    values.get("sliding_window")
    values.get("max_window_layers")
    layers = values.size("num_hidden_layers")
    return plain(values, qk_norm=True, **mixtures.qwen(values, layers))


def gemma2(values: Values) -> ModelShape:
    """A window in every second layer, the first too."""
    return _gemma(values, 256000, 8192, 2)


def gemma3(values: Values) -> ModelShape:
    """A window in all but every `sliding_window_pattern`th layer."""
    pattern = values.size("sliding_window_pattern", values.get("_sliding_window_pattern", 6))
    shape = _gemma(values, 262208, 131072, pattern)
    shape.qk_norm, shape.rope_theta = True, rope_theta(values, 1_000_000.0)
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
        norm_eps=values.number("rms_norm_eps", 1e-6),
        tied_embeddings=values.flag("tie_word_embeddings", True),
        post_norms=True,
    )
    types = layer_types(values, shape.layers, lambda at: SLIDING if (at + 1) % pattern else FULL)
    size = values.size("sliding_window")  # the classes' own is not that of published models
    values.only("sliding_window_size", size, size)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def gpt_oss(values: Values) -> ModelShape:
    """A window in every second layer, the first too; biases on all linear layers."""
    values.only("attention_bias", True, True)
    active = values.size("num_experts_per_tok")
    values.only("experts_per_token", active, active)
    shape = plain(
        values,
        head_dim=values.size("head_dim", 64),
        linear_bias=True,
        experts=values.size("num_local_experts"),
        active_experts=active,
    )
    types = layer_types(values, shape.layers, lambda at: FULL if at % 2 else SLIDING)
    values.size("sliding_window")
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def llama4(values: Values) -> ModelShape:
    """Layers with rotary embeddings attend within chunks, those without in full."""
    values.only("attention_bias", False, False)
    values.get("use_qk_norm")  # without weights
    layers = values.size("num_hidden_layers")
    interval = values.size("no_rope_layer_interval", 4)
    rotary = values.sizes("no_rope_layers") or [(at + 1) % interval for at in range(layers)]
    if len(rotary) < layers:
        raise values.wrong("no_rope_layers", f"a 0 or a 1 for each of {layers} layers")
    shape = plain(values, **mixtures.llama4(values, layers))
    types = layer_types(values, layers, lambda at: "chunked_attention" if rotary[at] else FULL)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def deepseek(values: Values) -> ModelShape:
    """Multi-head latent attention in all layers; those that predict further tokens are left out."""
    values.only("attention_bias", False, False)
    values.only("mlp_bias", False, False)
    for key in ("num_nextn_predict_layers", "num_mtp_layers", "qk_head_dim", "head_dim"):
        values.get(key)  # the last is what the library calls the part with positions
    layers = values.size("num_hidden_layers")
    rope = values.size("qk_rope_head_dim")
    value_dim = values.size("v_head_dim")
    shape = plain(
        values,
        kv_default=values.size("num_attention_heads"),
        head_dim=values.size("qk_nope_head_dim") + rope,
        **mixtures.deepseek(values, layers),
    )
    latent = LayerSpec(
        "latent",
        layers,
        v_head_dim=value_dim,
        q_lora_rank=values.size("q_lora_rank", 0, least=0),
        kv_lora_rank=values.size("kv_lora_rank"),
        rope_dim=rope,
    )
    shape.layer_groups = [latent]
    return shape


def jamba(values: Values) -> ModelShape:
    """Attention in each `attn_layer_period`th layer, Mamba in the others."""
    values.only("mamba_proj_bias", False, False)
    values.only("mamba_conv_bias", True, True)
    values.get("mamba_inner_layernorms")
    values.get("sliding_window")  # of no layer, in the model's class
    layers, hidden = values.size("num_hidden_layers"), values.size("hidden_size")
    period, offset = values.size("attn_layer_period"), values.size("attn_layer_offset", least=0)
    rank = values.get("mamba_dt_rank", "auto")
    state = LayerSpec(
        "state",
        mixer="mamba",
        inner=values.size("mamba_expand") * hidden,
        state_dim=values.size("mamba_d_state"),
        conv_kernel=values.size("mamba_d_conv"),
        dt_rank=-(-hidden // 16) if rank == "auto" else values.size("mamba_dt_rank"),
    )
    shape = plain(values, **mixtures.jamba(values, layers))
    kinds = [LayerSpec() if at % period == offset else state for at in range(layers)]
    shape.layer_groups = grouped(kinds)
    return shape


def qwen3_next(values: Values) -> ModelShape:
    """Gated DeltaNet in all but every `full_attention_interval`th layer, which is gated too."""
    values.only("attention_bias", False, False)
    layers = values.size("num_hidden_layers")
    interval = values.size("full_attention_interval", 4)
    value_heads = values.size("linear_num_value_heads")
    state = LayerSpec(
        "state",
        mixer="gated_delta",
        inner=value_heads * values.size("linear_value_head_dim"),
        state_dim=values.size("linear_key_head_dim"),
        state_groups=values.size("linear_num_key_heads"),
        state_heads=value_heads,
        conv_kernel=values.size("linear_conv_kernel_dim"),
    )
    shape = plain(
        values,
        head_dim=values.size("head_dim", 256),
        qk_norm=True,
        attention_gate=True,
        shared_ffn=values.size("shared_expert_intermediate_size"),
        **mixtures.qwen(values, layers),
    )
    linear = "linear_attention"
    types = layer_types(values, layers, lambda at: linear if (at + 1) % interval else FULL)
    made = {FULL: LayerSpec(), linear: state}
    if not {*types} <= {*made}:
        raise values.wrong("layer_types", f"{FULL}, {linear}")
    shape.layer_groups = grouped([made[name] for name in types])
    return shape


def mllama(values: Values) -> ModelShape:
    """Llama 3.2 Vision's language model; `vision_layers` are added to it."""
    values.get("cross_attention_layers")
    return plain(values)


def vision_layers(values: Values, vision: Values, layers: int) -> list[LayerSpec]:
    """Return the layer groups of a Llama 3.2 Vision with an image of as many tiles as it takes.

    A tile has a token for each patch and one for itself.
    """
    patches = vision.size("image_size") // vision.size("patch_size")
    tokens = vision.size("max_num_tiles") * (patches * patches + 1)
    cross = LayerSpec("cross", encoder_tokens=tokens)
    places = values.sizes("cross_attention_layers") or CROSS_LAYERS
    return grouped([cross if at in places else LayerSpec() for at in range(layers)])


#: by `model_type`
READERS: dict[str, Callable[[Values], ModelShape]] = {
    "llama": llama,
    "mistral": mistral,
    "ministral": ministral,
    "mixtral": mixtral,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "opt": opt,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
    "gpt_oss": gpt_oss,
    "llama4_text": llama4,
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "jamba": jamba,
    "qwen3_next": qwen3_next,
    "mllama_text_model": mllama,
}
