"""What layers of one kind keep and compute, where a model's layers are not all the same.

A `LayerSpec` is what a file in `conf/model` says of a layer group; `LayerGroup`, what an allocator
knows of it, follows from it.  Dimensions that are 0 are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass

#: kinds of layers that attend to keys and values of heads
HEAD_KINDS = ("full", "sliding", "chunked", "cross")
#: what a state is computed by: Mamba (arXiv 2312.00752), Mamba-2 (arXiv 2405.21060), Gated DeltaNet
#: (arXiv 2412.06464)
MIXERS = ("mamba", "mamba2", "gated_delta")


@dataclass
class LayerSpec:
    """Layers that keep the same: one layer group of a model, in the order of their first layers.

    kind: full, latent, sliding, chunked, state or cross (`allocators.layers`).
    window: of a sliding kind, or the chunk of a chunked one, in tokens.
    encoder_tokens: what a cross layer attends to, tokens a sequence.
    """

    kind: str = "full"
    layers: int = 0
    window: int = 0
    encoder_tokens: int = 0
    # -- attention: heads of queries, of keys and values; dimensions of a key, of a value ------
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    v_head_dim: int = 0  # 0: as head_dim
    # -- latent: ranks of the down-projections, dimensions of the key that all heads share -----
    q_lora_rank: int = 0  # 0: queries come straight from the hidden states
    kv_lora_rank: int = 0
    rope_dim: int = 0  # part of head_dim
    # -- state: `inner` channels, each of which keeps `state_dim` numbers ----------------------
    mixer: str = ""
    inner: int = 0
    state_dim: int = 0
    state_groups: int = 0  # heads of what is written to a state and read with: B and C, or K and Q
    state_heads: int = 0  # heads that decay on their own: Mamba-2, Gated DeltaNet
    dt_rank: int = 0  # Mamba
    conv_kernel: int = 0  # its last inputs but one are kept too
    state_dtype_bytes: int = 0  # of the recurrent state; 0: the model's, as `auto` of vLLM
    #: in place of these: bytes a sequence of one layer, and the weights of what computes it
    state_bytes: int = 0
    parameters: int = 0

    @property
    def latent_dim(self) -> int:
        """Numbers that a latent layer keeps of a token (DeepSeek-V2, arXiv 2405.04434, 2.1)."""
        return self.kv_lora_rank + self.rope_dim

    @property
    def conv_channels(self) -> int:
        """Channels of a state layer's convolution: its inputs, and what is written and read."""
        return self.inner + 2 * self.state_groups * self.state_dim
