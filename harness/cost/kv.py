"""What a model keeps of each sequence: bytes by layer group, by rank, by number format.

| kv_dtype | a number | scales |
|---|---|---|
| `auto` | as the model computes | none |
| `fp32`, `fp16`, `bf16` | 4, 2, 2 bytes | none |
| `fp8` | 1 byte | one for the keys and one for the values of a layer, with its weights |
| `fp8_per_token_head`, `int8` | 1 byte | two for each token and KV head, in the pool |

A scale is a number of fp32.  These are formats of vLLM, where the last two are called `fp8`
(FP8_PER_TENSOR), `fp8_per_token_head` and `int8_per_token_head` (vllm/v1/kv_cache_interface.py).

A state is no key and no value: `kv_dtype` leaves it as it is.

Tensor parallelism splits the KV heads, and with fewer heads than ranks replicates them; splits the
channels of a state likewise (`MambaStateShapeCalculator` in vLLM); and holds a latent, which all
heads share, on every rank (DeepSeek-V2, arXiv 2405.04434, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from allocators.base import Geometry
from allocators.layers import TOKEN_KINDS, LayerGroup
from harness.cost.layers import LayerSpec
from harness.cost.shapes import ModelShape


class KvFormat(NamedTuple):
    """Bytes of a number; of the scale of a token's keys (or values) in a head; of a layer's scales.

    `number_bytes` is 0 for the model's own.
    """

    number_bytes: int
    scale_bytes: int = 0
    layer_bytes: int = 0


KV_FORMATS = {
    "auto": KvFormat(0),
    "fp32": KvFormat(4),
    "fp16": KvFormat(2),
    "bf16": KvFormat(2),
    "fp8": KvFormat(1, layer_bytes=2 * 4),
    "fp8_per_token_head": KvFormat(1, scale_bytes=4),
    "int8": KvFormat(1, scale_bytes=4),
}


def kv_format(model: ModelShape) -> KvFormat:
    """Return the format of the KV, with the bytes of a number."""
    found = KV_FORMATS[model.kv_dtype]
    return found._replace(number_bytes=found.number_bytes or model.dtype_bytes)


def settled_layers(model: ModelShape) -> list[LayerSpec]:
    """Return the layer groups with every dimension filled in; one full group if it is uniform."""
    groups = model.layer_groups or [LayerSpec("full", model.layers)]
    return [_settled(model, group) for group in groups]


def _settled(model: ModelShape, group: LayerSpec) -> LayerSpec:
    head_dim = group.head_dim or model.head_dim
    return replace(
        group,
        heads=group.heads or model.heads,
        kv_heads=group.kv_heads or model.kv_heads,
        head_dim=head_dim,
        v_head_dim=group.v_head_dim or head_dim,
        state_dtype_bytes=group.state_dtype_bytes or model.dtype_bytes,
    )


def split(count: int, ranks: int) -> int:
    """Return how many of `count` heads or channels one rank holds, at least one where there are."""
    return -(-count // ranks)


def kv_heads_per_rank(model: ModelShape, ranks: int = 1) -> int:
    """Return the KV heads that one rank holds: ceil(kv_heads / ranks), at least one."""
    return max(1, split(model.kv_heads, ranks))


def slot_bytes(model: ModelShape, layer: LayerSpec, ranks: int = 1) -> int:
    """Return the bytes that one slot takes in one layer of a settled kind, on all ranks.

    The slot holds a token, or the state of a sequence.
    """
    form = kv_format(model)
    if layer.kind == "state":
        return ranks * state_bytes(model, layer, ranks)
    if layer.kind == "latent":
        return ranks * layer.latent_dim * form.number_bytes
    numbers = layer.head_dim + layer.v_head_dim
    heads = ranks * max(1, split(layer.kv_heads, ranks))
    return heads * (numbers * form.number_bytes + 2 * form.scale_bytes)


def state_bytes(model: ModelShape, layer: LayerSpec, ranks: int = 1) -> int:
    """Return the bytes of one sequence's state in one layer, on one rank.

    The recurrent state, [inner, state_dim], and the last inputs of the convolution,
    [conv_channels, conv_kernel - 1]: `mamba1_state_shape`, `mamba2_state_shape` and
    `gated_delta_net_state_shape` in vLLM's mamba_utils.py.
    """
    if layer.state_bytes:
        return split(layer.state_bytes, ranks)
    inner, groups = split(layer.inner, ranks), split(layer.state_groups, ranks)
    channels = inner + 2 * groups * layer.state_dim
    recurrent = inner * layer.state_dim * layer.state_dtype_bytes
    return recurrent + channels * (layer.conv_kernel - 1) * model.dtype_bytes


def layer_groups(model: ModelShape, ranks: int = 1) -> tuple[LayerGroup, ...]:
    """Return what an allocator knows of the model's layers; nothing of a uniform model."""
    if not model.layer_groups:
        return ()
    return tuple(
        LayerGroup(
            layer.kind,
            layer.layers,
            layer.layers * slot_bytes(model, layer, ranks),
            layer.window,
            layer.encoder_tokens,
        )
        for layer in settled_layers(model)
    )


def kv_bytes_per_token(model: ModelShape, ranks: int = 1) -> int:
    """Return the bytes of one token, summed over the layers that keep it and over the ranks."""
    return sum(
        layer.layers * slot_bytes(model, layer, ranks)
        for layer in settled_layers(model)
        if layer.kind in TOKEN_KINDS
    )


def needed_bytes(groups: Iterable[LayerGroup], tokens: int) -> int:
    """Return the most bytes that a sequence needs at once on its way to so many tokens.

    Only what a token still reads counts: `window` tokens at most of a sliding kind and of a chunk.
    No memory manager can do with less while one token is computed at a time.
    """
    if not tokens:
        return 0
    needed = 0
    for group in groups:
        slots = min(tokens, group.window or tokens) if group.grows else group.encoder_tokens or 1
        needed += slots * group.slot_bytes
    return needed


def kv_geometry(
    model: ModelShape,
    ranks: int,
    *,
    capacity_tokens: int,
    host_tokens: int = 0,
    max_seqs: int,
    max_len: int,
    pool_bytes: int = 0,
    step_tokens: int = 0,
) -> Geometry:
    """Return a KV pool for `model` on `ranks` GPUs, with `host_tokens` more in host memory.

    Each rank holds its own KV heads of every token; `max_seqs` sequences of up to `max_len` tokens
    live at a time, and a step computes `step_tokens` at most (0: unknown).  With layer groups the
    pool has `pool_bytes` for all of them together, by default those of `capacity_tokens`.
    """
    groups, form = layer_groups(model, ranks), kv_format(model)
    if groups and not pool_bytes:
        pool_bytes = capacity_tokens * kv_bytes_per_token(model, ranks)
    return Geometry(
        capacity_tokens=capacity_tokens,
        host_tokens=host_tokens,
        max_seqs=max_seqs,
        max_len=max_len,
        layers=model.layers,
        kv_heads=kv_heads_per_rank(model, ranks),
        head_dim=model.head_dim,
        dtype_bytes=form.number_bytes,
        scale_bytes=form.scale_bytes,
        ranks=ranks,
        layer_groups=groups,
        pool_bytes=pool_bytes if groups else 0,
        step_tokens=step_tokens,
    )
