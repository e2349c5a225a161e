"""Shapes of models with experts, latents, states or an encoder, from the keys of a config.json."""

from __future__ import annotations

from harness.cost.hf import experts
from harness.cost.hf.dense import one_window, plain
from harness.cost.hf.groups import CHUNKED, FULL, LINEAR, SLIDING, grouped, layer_types, windowed
from harness.cost.hf.values import Values
from harness.cost.layers import LayerSpec
from harness.cost.shapes import ModelShape

#: of Llama 3.2 11B Vision, where its file does not say
CROSS_LAYERS = [3, 8, 13, 18, 23, 28, 33, 38]


def mixtral(values: Values) -> ModelShape:
    shape = one_window(values, eps_default=1e-5)
    shape.experts = values.size("num_local_experts")
    shape.active_experts = values.size("num_experts_per_tok")
    return shape


def qwen3_moe(values: Values) -> ModelShape:
    values.only("attention_bias", False, False)
    values.only("use_sliding_window", False, False)
    values.only("qkv_bias", False, False)
    values.only("use_qk_norm", True, True)
    values.only("shared_expert_intermediate_size", 0, 0)
    values.get("sliding_window")
    values.get("max_window_layers")
    layers = values.layers()
    return plain(values, qk_norm=True, **experts.qwen(values, layers))


def gpt_oss(values: Values) -> ModelShape:
    """A window in every second layer, the first too; biases on all linear layers."""
    values.only("attention_bias", True, True)
    active = values.size("num_experts_per_tok")
    values.only("experts_per_token", active, active)
    shape = plain(
        values,
        eps_default=1e-5,
        family="gpt_oss",
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
    layers = values.layers()
    interval = values.size("no_rope_layer_interval", 4)
    rotary = values.sizes("no_rope_layers") or [(at + 1) % interval for at in range(layers)]
    if len(rotary) < layers:
        raise values.wrong("no_rope_layers", f"a 0 or a 1 for each of {layers} layers")
    shape = plain(values, eps_default=1e-5, **experts.llama4(values, layers))
    types = layer_types(values, layers, lambda at: CHUNKED if rotary[at] else FULL)
    shape.layer_groups = windowed(values, types, shape.max_context)
    return shape


def deepseek(values: Values) -> ModelShape:
    """Multi-head latent attention in all layers; those that predict further tokens are left out."""
    values.only("attention_bias", False, False)
    values.only("mlp_bias", False, False)
    for key in ("num_nextn_predict_layers", "num_mtp_layers", "qk_head_dim", "head_dim"):
        values.get(key)  # the last is what the library calls the part with positions
    # DeepSeek's own classes take other values than transformers' where these are left out.
    values.stated("q_lora_rank", "n_shared_experts", "first_k_dense_replace")
    layers = values.layers()
    rope = values.size("qk_rope_head_dim")
    queries = values.get("q_lora_rank") is not None
    value_dim = values.size("v_head_dim")
    shape = plain(
        values,
        kv_default=values.size("num_attention_heads"),
        head_dim=values.size("qk_nope_head_dim") + rope,
        **experts.deepseek(values),
    )
    latent = LayerSpec(
        "latent",
        layers,
        v_head_dim=value_dim,
        q_lora_rank=values.size("q_lora_rank") if queries else 0,
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
    layers, hidden = values.layers(), values.size("hidden_size")
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
    shape = plain(values, **experts.jamba(values, layers))
    kinds = [LayerSpec() if at % period == offset else state for at in range(layers)]
    shape.layer_groups = grouped(kinds)
    return shape


def qwen3_next(values: Values) -> ModelShape:
    """Gated DeltaNet in all but every `full_attention_interval`th layer, which is gated too."""
    values.only("attention_bias", False, False)
    values.only("use_sliding_window", False, False)
    layers = values.layers()
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
        **experts.qwen(values, layers),
    )
    types = layer_types(values, layers, lambda at: LINEAR if (at + 1) % interval else FULL)
    made = {FULL: LayerSpec(), LINEAR: state}
    if not {*types} <= {*made}:
        raise values.wrong("layer_types", f"{FULL}, {LINEAR}")
    shape.layer_groups = grouped([made[name] for name in types])
    return shape


def mllama(values: Values) -> ModelShape:
    """Llama 3.2 Vision's language model; `vision_layers` are added to it."""
    values.get("cross_attention_layers")
    return plain(values, eps_default=1e-5)


def vision_layers(values: Values, vision: Values, layers: int) -> list[LayerSpec]:
    """Return the layer groups of a Llama 3.2 Vision with an image of as many tiles as it takes.

    A tile has a token for each patch and one for itself.
    """
    patches = vision.size("image_size") // vision.size("patch_size")
    tokens = vision.size("max_num_tiles") * (patches * patches + 1)
    cross = LayerSpec("cross", encoder_tokens=tokens)
    stated = values.get("cross_attention_layers") is not None
    places = values.sizes("cross_attention_layers") if stated else CROSS_LAYERS
    return grouped([cross if at in places else LayerSpec() for at in range(layers)])
