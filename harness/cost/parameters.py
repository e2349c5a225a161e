"""How many weights a model has, layer by layer, and the bytes they take.

Matrices count to the number; what is a vector (norms, biases, the convolution and the decays of a
state) is counted where a published total has it, and never priced.
"""

from __future__ import annotations

import math

from harness.cost.kv import kv_format, settled_layers
from harness.cost.layers import LayerSpec
from harness.cost.shapes import OPT_POSITION_OFFSET, ModelShape


def mixer_parameters(model: ModelShape, layer: LayerSpec) -> int:
    """Return the matrices of one settled layer besides its feed-forward.

    Q, K, V and the output of attention, from hidden states of [hidden]; for a cross layer K and V
    are those of the encoder's.
    """
    if layer.kind == "state":
        return _state_parameters(model, layer)
    if layer.kind == "latent":
        return _latent_parameters(model, layer)
    query, output = layer.heads * layer.head_dim, layer.heads * layer.v_head_dim
    gates = output if model.attention_gate else 0
    return model.hidden * (query + gates + output) + key_value_parameters(model, layer)


def key_value_parameters(model: ModelShape, layer: LayerSpec) -> int:
    """Return the K and V projections of one layer with heads."""
    return model.hidden * _key_value(layer)


def _key_value(layer: LayerSpec) -> int:
    return layer.kv_heads * (layer.head_dim + layer.v_head_dim)


def _latent_parameters(model: ModelShape, layer: LayerSpec) -> int:
    """Multi-head latent attention: DeepSeek-V2, arXiv 2405.04434, appendix C, W^DQ to W^O."""
    query = layer.heads * layer.head_dim
    down = model.hidden * layer.latent_dim
    if layer.q_lora_rank:
        queries = layer.q_lora_rank * (model.hidden + query)
    else:
        queries = model.hidden * query
    output = layer.heads * layer.v_head_dim * model.hidden
    return queries + down + latent_up_parameters(layer) + output


def latent_up_parameters(layer: LayerSpec) -> int:
    """Return the weights that make keys and values of a latent: W^UK and W^UV of that paper."""
    return layer.kv_lora_rank * layer.heads * (layer.head_dim - layer.rope_dim + layer.v_head_dim)


def _state_parameters(model: ModelShape, layer: LayerSpec) -> int:
    """Projections of Mamba (arXiv 2312.00752), Mamba-2 (2405.21060) or Gated DeltaNet (2412.06464).

    All take the hidden states to the inputs and their gates, each [inner], and back.
    """
    if layer.parameters:
        return layer.parameters
    outer = 3 * model.hidden * layer.inner
    written = 2 * layer.state_groups * layer.state_dim
    if layer.mixer == "mamba":  # of the convolution's result: the step's rank, B and C
        return outer + layer.inner * (2 * layer.dt_rank + 2 * layer.state_dim)
    if layer.mixer == "mamba2":  # B, C, and a step for each head
        return outer + model.hidden * (written + layer.state_heads)
    return outer + model.hidden * (written + 2 * layer.state_heads)  # queries, keys, alpha, beta


def expert_parameters(model: ModelShape, width: int | None = None) -> int:
    """Return the weights of one expert, or of a feed-forward of another width.

    The one expert of a dense layer is its whole feed-forward.
    """
    return (3 if model.gated_ffn else 2) * model.hidden * (model.ffn if width is None else width)


def router_parameters(model: ModelShape) -> int:
    """Return the weights that choose a layer's experts; 0 for a dense model."""
    return model.hidden * model.experts if model.experts > 1 else 0


def always_parameters(model: ModelShape) -> int:
    """Return the matrices of all layers but those of the experts that a token chooses."""
    mixers = sum(each.layers * mixer_parameters(model, each) for each in settled_layers(model))
    mixed = router_parameters(model) + expert_parameters(model, model.shared_ffn)
    dense = model.dense_layers * expert_parameters(model, model.dense_ffn)
    return mixers + expert_layers(model) * mixed + dense


def passed_parameters(model: ModelShape) -> int:
    """Return the matrices that every token passes, all layers, but for its experts.

    A cross layer's K and V projections are for the encoder's tokens.
    """
    unused = sum(
        each.layers * key_value_parameters(model, each)
        for each in settled_layers(model)
        if each.kind == "cross"
    )
    return always_parameters(model) - unused


def expert_layers(model: ModelShape) -> int:
    """Return the layers with experts (of a dense model: all, with one expert each)."""
    return model.layers - model.dense_layers


def all_expert_parameters(model: ModelShape) -> int:
    """Return the weights of all experts of all layers."""
    return expert_layers(model) * model.experts * expert_parameters(model)


def parameter_count(model: ModelShape) -> int:
    """Return the number of parameters, embeddings included (tied ones once)."""
    total = always_parameters(model) + all_expert_parameters(model) + _vectors(model)
    return total + _embedding_parameters(model)


def weight_bytes(model: ModelShape) -> int:
    """Return the bytes of all weights, summed over the ranks.

    `weight_bits` and `expert_bits` are of the layers' matrices; embeddings, the output head and
    vectors are stored as the model computes.  What tensor parallelism replicates (norms, routers,
    the down-projections of latents; K and V projections when there are fewer KV heads than ranks)
    is counted once: on eight ranks 2.2 % at most of the published models here.
    """
    plain = 8.0 * model.dtype_bytes
    bits = model.weight_bits or plain
    stored = always_parameters(model) * bits
    stored += all_expert_parameters(model) * (model.expert_bits or bits)
    rest = (_vectors(model) + _embedding_parameters(model)) * model.dtype_bytes
    scales = kv_format(model).layer_bytes * sum(
        each.layers for each in settled_layers(model) if each.kind != "state"
    )
    return math.ceil(stored / 8) + rest + scales


def _embedding_parameters(model: ModelShape) -> int:
    total = model.vocab * model.hidden * (1 if model.tied_embeddings else 2)
    if model.learned_positions:
        total += (model.max_context + OPT_POSITION_OFFSET) * model.hidden
    return total


def _vectors(model: ModelShape) -> int:
    """Return the numbers of norms, biases and whatever else is no matrix, all layers."""
    # LayerNorm has a bias, RMSNorm not.
    norm = model.hidden * (2 if model.family == "opt" else 1)
    norms = model.layers * (4 if model.post_norms else 2) + 1
    total = norms * norm + sum(
        each.layers * _mixer_vectors(model, each) for each in settled_layers(model)
    )
    if model.linear_bias:
        expert = model.hidden + model.ffn * (2 if model.gated_ffn else 1)
        routers = model.experts if model.experts > 1 else 0
        total += expert_layers(model) * (model.experts * expert + routers)
    return total


def _mixer_vectors(model: ModelShape, layer: LayerSpec) -> int:
    if layer.kind == "latent":
        return layer.q_lora_rank + layer.kv_lora_rank  # norms of the down-projections
    if layer.kind == "state":
        return _state_vectors(layer)
    total = 0
    if model.linear_bias or model.qkv_bias:
        total += layer.heads * layer.head_dim + _key_value(layer)
    if model.linear_bias:
        total += model.hidden
    if model.qk_norm or layer.kind == "cross":
        total += 2 * layer.head_dim
    return total


def _state_vectors(layer: LayerSpec) -> int:
    """The convolution, what decays the states, and norms."""
    if layer.parameters:
        return 0
    convolution = layer.conv_channels * layer.conv_kernel
    if layer.mixer == "mamba":  # biases of the convolution and the step, A, D
        return convolution + layer.inner * (3 + layer.state_dim)
    if layer.mixer == "mamba2":  # bias; A, D and the step's bias of each head; the gated norm
        return convolution + layer.conv_channels + 3 * layer.state_heads + layer.inner
    return convolution + 2 * layer.state_heads + layer.inner // max(1, layer.state_heads)
