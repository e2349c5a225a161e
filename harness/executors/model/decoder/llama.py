"""Llama and its relatives: RMSNorm, rotary embeddings, SwiGLU, grouped queries.

Touvron et al., arXiv 2307.09288; rotary embeddings: Su et al., arXiv 2104.09864, in Hugging Face's
convention, which turns number i of a head together with number i + head_dim / 2.  Qwen2.5 adds a
bias on Q, K and V (arXiv 2412.15115), Qwen3 an RMSNorm on each head's Q and K (arXiv 2505.09388).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from harness.executors.model.decoder.batching import Batching
from harness.executors.model.decoder.core import Attention, Decoder, Rotary
from harness.executors.model.decoder.weights import Kind, Loader


@dataclass(frozen=True, slots=True)
class LlamaLayer:
    """One layer; D is head_dim, H query heads, G KV heads."""

    attention_norm: torch.Tensor  # [hidden]
    qkv: torch.Tensor  # [(H + 2 G) D, hidden]
    qkv_bias: torch.Tensor | None  # [(H + 2 G) D]
    qk_norm: torch.Tensor | None  # [H + G, D]
    output: torch.Tensor  # [hidden, H D]
    ffn_norm: torch.Tensor  # [hidden]
    gate_up: torch.Tensor  # [2 ffn, hidden]
    down: torch.Tensor  # [hidden, ffn]


class LlamaDecoder(Decoder):
    """The llama family; see the module."""

    def _load(self, loader: Loader) -> None:
        shape = self.shape
        table = (shape.vocab, shape.hidden)
        self._embedding = loader.one("model.embed_tokens.weight", table, Kind.EMBEDDING)
        self._layers = [self._load_layer(loader, f"model.layers.{i}") for i in range(shape.layers)]
        self._norm = loader.one("model.norm.weight", (shape.hidden,), Kind.NORM)
        if shape.tied_embeddings:
            self._head = self._embedding
        else:
            self._head = loader.one("lm_head.weight", table, Kind.EMBEDDING)
        self._frequencies = frequencies(shape.rope_theta, shape.head_dim).to(self.device)

    def _load_layer(self, loader: Loader, at: str) -> LlamaLayer:
        shape = self.shape
        hidden, dim, linear = shape.hidden, shape.head_dim, Kind.LINEAR
        query, key = shape.heads * dim, shape.kv_heads * dim
        parts, rows = [f"{at}.self_attn.{one}_proj" for one in "qkv"], [query, key, key]
        bias = norm = None
        if shape.qkv_bias:
            bias = loader.fused([f"{part}.bias" for part in parts], rows, (), Kind.BIAS)
        if shape.qk_norm:
            weights = [
                loader.one(f"{at}.self_attn.{one}_norm.weight", (dim,), Kind.NORM) for one in "qk"
            ]
            norm = torch.cat(
                [
                    weight.expand(heads, dim)
                    for weight, heads in zip(weights, (shape.heads, shape.kv_heads), strict=True)
                ]
            )
        gate_up = [f"{at}.mlp.{one}_proj.weight" for one in ("gate", "up")]
        return LlamaLayer(
            attention_norm=loader.one(f"{at}.input_layernorm.weight", (hidden,), Kind.NORM),
            qkv=loader.fused([f"{part}.weight" for part in parts], rows, (hidden,), linear),
            qkv_bias=bias,
            qk_norm=norm,
            output=loader.one(f"{at}.self_attn.o_proj.weight", (hidden, query), linear),
            ffn_norm=loader.one(f"{at}.post_attention_layernorm.weight", (hidden,), Kind.NORM),
            gate_up=loader.fused(gate_up, [shape.ffn] * 2, (hidden,), linear),
            down=loader.one(f"{at}.mlp.down_proj.weight", (hidden, shape.ffn), linear),
        )

    def _embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return functional.embedding(tokens, self._embedding)

    def _rotary(self, positions: torch.Tensor) -> Rotary:
        return turns(positions, self._frequencies, self.batching, self.dtype)

    def _layer(
        self,
        index: int,
        state: torch.Tensor,
        rotary: Rotary | None,
        attention: Attention,
    ) -> torch.Tensor:
        layer, shape, linear = self._layers[index], self.shape, self.batching.linear
        qkv = linear(self._rms(state, layer.attention_norm), layer.qkv, layer.qkv_bias)
        qkv = qkv.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        qk, v = qkv.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=1)
        if layer.qk_norm is not None:
            qk = functional.rms_norm(qk, (shape.head_dim,), None, shape.norm_eps) * layer.qk_norm
        q, k = turn(qk, *rotary).split([shape.heads, shape.kv_heads], dim=1)
        state += linear(attention(q, k, v), layer.output)
        gate_up = linear(self._rms(state, layer.ffn_norm), layer.gate_up)
        gate, up = gate_up.split(shape.ffn, dim=1)
        inner = self.batching.steady(_silu_, gate).mul_(up)
        state += linear(inner, layer.down)
        return state

    def _final_norm(self, state: torch.Tensor) -> torch.Tensor:
        return self._rms(state, self._norm)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (self.shape.hidden,), weight, self.shape.norm_eps)


def frequencies(theta: float, head_dim: int) -> torch.Tensor:
    """Return the angle of each pair at position 1, [head_dim / 2].

    On the CPU: a GPU's powers differ in the last bit.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / theta**exponents


def turns(
    positions: torch.Tensor,
    frequencies: torch.Tensor,
    batching: Batching,
    dtype: torch.dtype,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines times `scale`, [rows, 1, D / 2]; angles are float32 in any case."""
    angles = positions[:, None].float() * frequencies
    cos, sin = batching.steady(torch.cos_, angles.clone()), batching.steady(torch.sin_, angles)
    if scale != 1.0:
        cos, sin = cos * scale, sin * scale
    return cos[:, None].to(dtype), sin[:, None].to(dtype)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (i, i + D / 2) of x, [T, heads, D], by its angle."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _silu_(x: torch.Tensor) -> torch.Tensor:
    return functional.silu(x, inplace=True)
