"""What a cost is computed from: the model's shape, the hardware, and the model's constants.

The three dataclasses are plain, so that they serve as OmegaConf structured configs; each YAML file
in `conf/model`, `conf/hardware` and `conf/cost_model` fills exactly one of them.

Under tensor parallelism a *rank* is one GPU.  Each rank holds 1/ranks of every weight matrix and
the keys and values of its own KV heads; with fewer KV heads than ranks, heads are replicated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from allocators.base import Geometry
from harness.errors import InputError

#: OPT offsets its learned positions by two rows (arXiv 2205.01068, released checkpoints)
OPT_POSITION_OFFSET = 2


class CostError(InputError, ValueError):
    """A model and a hardware that cannot go together; its text is one line for a person."""


@dataclass
class ModelShape:
    """The shape of a decoder-only transformer (published `config.json` values).

    `head_dim` is the configuration's own, never hidden / heads (Qwen3-30B-A3B differs).  With
    `experts` > 1 the feed-forward is a mixture: `ffn` is the width of one expert, and each token
    visits `active_experts` of them.
    """

    name: str = ""
    family: str = "llama"  # llama (RMSNorm, rotary) or opt (LayerNorm, learned positions)
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    ffn: int = 0
    vocab: int = 0
    max_context: int = 0
    dtype_bytes: int = 2
    gated_ffn: bool = True  # SwiGLU: three matrices; OPT: two
    tied_embeddings: bool = False
    learned_positions: bool = False
    linear_bias: bool = False  # a bias on every linear layer (OPT)
    qkv_bias: bool = False  # on Q, K and V alone (Qwen2.5)
    qk_norm: bool = False  # RMSNorm on each head's Q and K (Qwen3)
    experts: int = 1
    active_experts: int = 1
    rope_theta: float = 10000.0  # base of the rotary frequencies; not used with learned positions
    norm_eps: float = 1e-5  # added to the variance (LayerNorm) or mean square (RMSNorm)


@dataclass
class HardwareSpec:
    """One GPU, `count` of which serve the model together by tensor parallelism.

    `memory_gb` is what CUDA reports, in GiB: 79.19 for a card that is sold with 80 GB.
    Bandwidths in vendor GB/s (1e9).  `pcie_gb_s` counts both directions together;
    `interconnect_gb_s` is one direction per GPU (NVLink, or PCIe where there is none).
    """

    name: str = ""
    memory_gb: float = 0.0
    bandwidth_gb_s: float = 0.0
    tflops: float = 0.0  # bf16, dense
    pcie_gb_s: float = 0.0
    interconnect_gb_s: float = 0.0
    count: int = 1
    #: share of the memory that the server may use; vLLM's `gpu_memory_utilization` default
    memory_utilization: float = 0.9
    #: share of the bandwidth at which decode attention reads the KV, and what a call costs besides;
    #: fitted to aiconfigurator's generation tables (these are the A100's, with FlashAttention-2)
    decode_bandwidth_efficiency: float = 0.75
    decode_floor_us: float = 20.0
    #: share of `interconnect_gb_s` that a ring all-reduce reaches, and its latency; fitted to
    #: Vidur's all_reduce.csv, NCCL (these are the DGX A100's)
    all_reduce_efficiency: float = 0.60
    all_reduce_latency_us: float = 50.0


def attention_parameters(model: ModelShape) -> int:
    """Return the weights of one layer's Q, K, V and output projections, without biases."""
    query = model.heads * model.head_dim
    return 2 * model.hidden * query + 2 * model.hidden * model.kv_heads * model.head_dim


def expert_parameters(model: ModelShape) -> int:
    """Return the weights of one expert, which is the whole feed-forward of a dense layer."""
    return (3 if model.gated_ffn else 2) * model.hidden * model.ffn


def router_parameters(model: ModelShape) -> int:
    """Return the weights that choose a layer's experts; 0 for a dense model."""
    return model.hidden * model.experts if model.experts > 1 else 0


def layer_parameters(model: ModelShape) -> int:
    """Return the parameters of one decoder layer, biases and norms included."""
    total = attention_parameters(model) + router_parameters(model)
    total += model.experts * expert_parameters(model)
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    if model.linear_bias or model.qkv_bias:
        total += query + 2 * key
    if model.linear_bias:
        total += 2 * model.hidden + model.ffn * (2 if model.gated_ffn else 1)
    if model.qk_norm:
        total += 2 * model.head_dim
    return total + 2 * _norm_parameters(model)


def parameter_count(model: ModelShape) -> int:
    """Return the number of parameters, embeddings included (tied ones once)."""
    total = model.layers * layer_parameters(model) + _norm_parameters(model)
    total += model.vocab * model.hidden * (1 if model.tied_embeddings else 2)
    if model.learned_positions:
        total += (model.max_context + OPT_POSITION_OFFSET) * model.hidden
    return total


def weight_bytes(model: ModelShape) -> int:
    """Return the bytes of all weights, summed over the ranks.

    What tensor parallelism replicates (norms; K and V projections when there are fewer KV heads
    than ranks) is counted once: under 1 % of every model here.
    """
    return parameter_count(model) * model.dtype_bytes


def kv_heads_per_rank(model: ModelShape, ranks: int = 1) -> int:
    """Return the KV heads that one rank holds: ceil(kv_heads / ranks), at least one."""
    return max(1, math.ceil(model.kv_heads / ranks))


def kv_bytes_per_token(model: ModelShape, ranks: int = 1) -> int:
    """Return the bytes of one token's keys and values, summed over layers and ranks."""
    per_rank = 2 * model.layers * kv_heads_per_rank(model, ranks) * model.head_dim
    return per_rank * model.dtype_bytes * ranks


def kv_geometry(
    model: ModelShape,
    ranks: int,
    *,
    capacity_tokens: int,
    host_tokens: int = 0,
    max_seqs: int,
    max_len: int,
) -> Geometry:
    """Return a KV pool for `model` on `ranks` GPUs, with `host_tokens` more in host memory.

    Each rank holds its own KV heads of every token; `max_seqs` sequences of up to `max_len` tokens
    live at a time.
    """
    return Geometry(
        capacity_tokens=capacity_tokens,
        host_tokens=host_tokens,
        max_seqs=max_seqs,
        max_len=max_len,
        layers=model.layers,
        kv_heads=kv_heads_per_rank(model, ranks),
        head_dim=model.head_dim,
        dtype_bytes=model.dtype_bytes,
        ranks=ranks,
    )


def _norm_parameters(model: ModelShape) -> int:
    return model.hidden * (2 if model.family == "opt" else 1)  # LayerNorm has a bias, RMSNorm not
