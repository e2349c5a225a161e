"""What a cost is computed from: the model's shape, the hardware, and the model's constants.

The three dataclasses are plain, so that they serve as OmegaConf structured configs; each YAML file
in `conf/model`, `conf/hardware` and `conf/cost_model` fills exactly one of them.

Under tensor parallelism a *rank* is one GPU.  Each rank holds 1/ranks of every weight matrix and
the keys and values of its own KV heads; with fewer KV heads than ranks, heads are replicated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.cost.layers import LayerSpec
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

    `layer_groups` are for a model whose layers do not all keep the keys and values of every token;
    without them it is uniform, and `heads`, `kv_heads` and `head_dim` are those of every layer.
    """

    name: str = ""
    family: str = "llama"  # llama, gemma3, gpt_oss (RMSNorm, rotary) or opt (LayerNorm)
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
    #: scores are divided by its square root (0: by that of head_dim; Gemma 3 27B: 168)
    query_scalar: float = 0.0
    norm_eps: float = 1e-5  # added to the variance (LayerNorm) or mean square (RMSNorm)
    #: bits a weight is stored in, where it is computed with in `dtype_bytes` (0: stored so too)
    weight_bits: float = 0.0
    expert_bits: float = 0.0  # of the experts' weights, where they differ (MXFP4: 4.25)
    shared_ffn: int = 0  # width of the experts that every token visits, all together
    dense_layers: int = 0  # of a mixture: layers without experts,
    dense_ffn: int = 0  # and the width of their feed-forward
    post_norms: bool = False  # norms behind attention and feed-forward too (Gemma 2 and 3)
    attention_gate: bool = False  # the output of attention is gated by as many numbers (Qwen3-Next)
    #: what the KV is stored in (`KV_FORMATS`), apart from the weights
    kv_dtype: str = "auto"
    layer_groups: list[LayerSpec] = field(default_factory=list)
    #: a Hugging Face config.json that the rest is read from (`harness.cost.hf`)
    path: str | None = None


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
