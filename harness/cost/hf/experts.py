"""Mixtures of experts, from what a config.json says: how many, how wide, in which layers."""

from __future__ import annotations

from typing import Any

from harness.cost.hf.values import Values


def dense_layers(count: int, width: int) -> dict[str, Any]:
    """Return the fields of a shape for layers without experts, whose feed-forward is `width`."""
    return {"dense_layers": count, "dense_ffn": width} if count else {}


def qwen(values: Values, layers: int) -> dict[str, Any]:
    """Return a Qwen's experts: in each `decoder_sparse_step`th layer, `mlp_only_layers` aside."""
    step, plain = values.size("decoder_sparse_step", 1), values.sizes("mlp_only_layers")
    dense = sum(at in plain or (at + 1) % step != 0 for at in range(layers))
    return {
        "ffn": values.size("moe_intermediate_size"),
        "experts": values.size(values.spelled("num_experts", "num_local_experts")),
        "active_experts": values.size("num_experts_per_tok"),
        **dense_layers(dense, values.size("intermediate_size")),
    }


def deepseek(values: Values) -> dict[str, Any]:
    """Return the experts of a DeepSeek: in all but the first `first_k_dense_replace` layers."""
    values.only("moe_layer_freq", 1, 1)
    width = values.size("moe_intermediate_size")
    dense = values.size("first_k_dense_replace", least=0)
    return {
        "ffn": width,
        "experts": values.size("n_routed_experts"),
        "active_experts": values.size("num_experts_per_tok"),
        "shared_ffn": width * values.size("n_shared_experts", 0, least=0),
        **dense_layers(dense, values.size("intermediate_size")),
    }


def llama4(values: Values, layers: int) -> dict[str, Any]:
    """Return the experts of a Llama 4: in `moe_layers`, else each `interleave_moe_layer_step`th."""
    step, width = values.size("interleave_moe_layer_step", 1), values.size("intermediate_size")
    mixed = {*range(step - 1, layers, step)}
    if values.get("moe_layers") is not None:
        mixed = {*values.sizes("moe_layers")}
        if not mixed <= {*range(layers)}:
            raise values.wrong("moe_layers", f"numbers of the {layers} layers, from 0")
    return {
        "ffn": width,
        "experts": values.size("num_local_experts"),
        "active_experts": values.size("num_experts_per_tok"),
        "shared_ffn": width,
        **dense_layers(layers - len(mixed), values.size("intermediate_size_mlp")),
    }


def jamba(values: Values, layers: int) -> dict[str, Any]:
    """Return the experts of a Jamba: in each `expert_layer_period`th layer."""
    period, offset = values.size("expert_layer_period"), values.size("expert_layer_offset", least=0)
    width = values.size("intermediate_size")
    dense = sum(at % period != offset for at in range(layers))
    return {
        "ffn": width,
        "experts": values.size("num_experts"),
        "active_experts": values.size("num_experts_per_tok"),
        **dense_layers(dense, width),
    }
