"""Which layer groups a model may have: one line that names the group and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping

from allocators.layers import KINDS, TOKEN_KINDS, WINDOW_KINDS
from harness.command.ranges import OneOf, Range, Whole, out_of_range
from harness.cost.kv import KV_FORMATS, settled_layers
from harness.cost.layers import HEAD_KINDS, MIXERS, LayerSpec
from harness.cost.shapes import CostError, ModelShape

SIZE = Whole(0, 2**24)
LAYER: Mapping[str, Range] = {
    "kind": OneOf(KINDS),
    "layers": Whole(1, 10_000),
    "window": Whole(0, 2**30),
    "encoder_tokens": Whole(0, 2**30),
    "state_dtype_bytes": OneOf((0, 1, 2, 4, 8)),
    "mixer": OneOf(("", *MIXERS)),
    "state_bytes": Whole(0, 2**40),
    "parameters": Whole(0, 2**40),
} | dict.fromkeys(
    (
        "heads", "kv_heads", "head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank", "rope_dim",
        "inner", "state_dim", "state_groups", "state_heads", "dt_rank", "conv_kernel",
    ),
    SIZE,
)  # fmt: skip
HEADS = ("heads", "kv_heads", "head_dim", "v_head_dim")
LATENT = ("q_lora_rank", "kv_lora_rank", "rope_dim")
STATE = (
    "mixer", "inner", "state_dim", "state_groups", "state_heads", "dt_rank", "conv_kernel",
    "state_dtype_bytes", "state_bytes", "parameters",
)  # fmt: skip
#: dimensions that each kind may have, beside `layers`
OPTIONS = (
    dict.fromkeys(KINDS, HEADS)
    | dict.fromkeys(WINDOW_KINDS, (*HEADS, "window"))
    | {"latent": (*HEADS, *LATENT), "state": STATE, "cross": (*HEADS, "encoder_tokens")}
)
#: those that it must have
NEEDED = dict.fromkeys(WINDOW_KINDS, ("window",)) | {
    "latent": ("kv_lora_rank", "rope_dim"),
    "cross": ("encoder_tokens",),
}
#: and those that a state must have by what computes it
MIXER_NEEDS = {
    "": ("state_bytes", "parameters"),
    "mamba": ("inner", "state_dim", "dt_rank", "conv_kernel"),
    "mamba2": ("inner", "state_dim", "state_groups", "state_heads", "conv_kernel"),
    "gated_delta": ("inner", "state_dim", "state_groups", "state_heads", "conv_kernel"),
}


def check_layers(model: ModelShape) -> None:
    """Raise `CostError` for layer groups that no model has, or that a KV format cannot keep."""
    for at, layer in enumerate(model.layer_groups):
        _check_layer(f"model.layer_groups.{at}", layer)
    layers = sum(layer.layers for layer in model.layer_groups)
    if model.layer_groups and layers != model.layers:
        raise CostError(
            f"model.layer_groups have {layers} layers in all and model.layers is {model.layers}: "
            "each layer is in one of them"
        )
    if model.layer_groups and not any(each.kind in TOKEN_KINDS for each in model.layer_groups):
        raise CostError(
            f"model.layer_groups need one of kind {', '.join(TOKEN_KINDS)}: in a model of states "
            "alone nothing grows with a sequence"
        )
    _check_settled(model)


def _check_layer(where: str, layer: LayerSpec) -> None:
    problem = out_of_range(where, layer, LAYER)
    if problem is not None:
        raise CostError(problem)
    plain = LayerSpec()
    for name in LAYER:
        allowed = name in ("kind", "layers") or name in OPTIONS[layer.kind]
        if not allowed and getattr(layer, name) != getattr(plain, name):
            kinds = ", ".join(kind for kind in KINDS if name in OPTIONS[kind])
            raise CostError(f"{where}.{name} is for kind {kinds}, got kind {layer.kind}")
    needed = MIXER_NEEDS[layer.mixer] if layer.kind == "state" else NEEDED.get(layer.kind, ())
    for name in needed:
        if not getattr(layer, name):
            what = f"{layer.kind} {layer.mixer}".rstrip()
            raise CostError(f"{where}.{name} must be given for kind {what}, and be at least 1")
    if layer.mixer and (layer.state_bytes or layer.parameters):
        raise CostError(
            f"{where}: state_bytes and parameters are in place of a mixer, got {layer.mixer}"
        )


def _check_settled(model: ModelShape) -> None:
    """Heads that divide each other, and scales for heads alone."""
    for at, layer in enumerate(settled_layers(model)):
        where = f"model.layer_groups.{at}"
        if layer.kind in HEAD_KINDS and layer.heads % layer.kv_heads:
            raise CostError(
                f"{where}.kv_heads must divide the {layer.heads} heads, got {layer.kv_heads}"
            )
        if layer.kind == "latent" and layer.rope_dim >= layer.head_dim:
            raise CostError(
                f"{where}.rope_dim must be less than head_dim={layer.head_dim}, of which it is a "
                f"part, got {layer.rope_dim}"
            )
        if layer.kind == "latent" and KV_FORMATS[model.kv_dtype].scale_bytes:
            plain = ", ".join(name for name, form in KV_FORMATS.items() if not form.scale_bytes)
            raise CostError(
                f"kv_dtype={model.kv_dtype} has a scale for each head's keys and values, and a "
                f"latent layer has neither; allowed: {plain}"
            )
