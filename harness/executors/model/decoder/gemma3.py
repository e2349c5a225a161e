"""Gemma 3: five layers that read a window to one that reads all, norms on both sides of each half.

Gemma team, arXiv 2503.19786, section 2; the figures not in it are those of the released
checkpoints' config.json.  Beside what Llama does:

- embeddings are multiplied by sqrt(hidden), norms by 1 + their weight;
- attention and feed-forward are normalised before they are added, Q and K head by head;
- the gate is GELU, in its tanh form;
- layers with a window turn q and k by frequencies of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from harness.executors.model.decoder.core import Attention, Decoder, Rotary
from harness.executors.model.decoder.llama import frequencies, turn, turns
from harness.executors.model.decoder.weights import Kind, Loader

#: base of the frequencies of layers with a window; that of the others is the shape's `rope_theta`
LOCAL_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class GemmaLayer:
    """One layer; norms are float32 and have 1 added.  D is head_dim, H query heads, G KV heads."""

    attention_norm: torch.Tensor  # [hidden], as the three others that are not of Q and K
    attended_norm: torch.Tensor
    ffn_norm: torch.Tensor
    computed_norm: torch.Tensor
    qk_norm: torch.Tensor  # [H + G, D]
    qkv: torch.Tensor  # [(H + 2 G) D, hidden]
    output: torch.Tensor  # [hidden, H D]
    gate_up: torch.Tensor  # [2 ffn, hidden]
    down: torch.Tensor  # [hidden, ffn]


class Gemma3Decoder(Decoder):
    """The gemma3 family; see the module."""

    def _load(self, loader: Loader) -> None:
        shape = self.shape
        table = (shape.vocab, shape.hidden)
        self._embedding = loader.one("model.embed_tokens.weight", table, Kind.SCALED)
        self._layers = [self._load_layer(loader, f"model.layers.{i}") for i in range(shape.layers)]
        self._norm = _norm(loader, "model.norm", shape.hidden)
        self._head = self._embedding
        # Rounded as the embeddings are, which is how the checkpoints were trained.
        self._embedding_scale = torch.tensor(shape.hidden**0.5, dtype=self.dtype).item()
        self._frequencies = [
            frequencies(theta, shape.head_dim).to(self.device)
            for theta in (LOCAL_THETA, shape.rope_theta)
        ]

    def _load_layer(self, loader: Loader, at: str) -> GemmaLayer:
        shape, linear = self.shape, Kind.LINEAR
        hidden, dim = shape.hidden, shape.head_dim
        query, key = shape.heads * dim, shape.kv_heads * dim
        qkv = [f"{at}.self_attn.{one}_proj.weight" for one in "qkv"]
        gate_up = [f"{at}.mlp.{one}_proj.weight" for one in ("gate", "up")]
        q_norm, k_norm = (_norm(loader, f"{at}.self_attn.{one}_norm", dim) for one in "qk")
        return GemmaLayer(
            attention_norm=_norm(loader, f"{at}.input_layernorm", hidden),
            attended_norm=_norm(loader, f"{at}.post_attention_layernorm", hidden),
            ffn_norm=_norm(loader, f"{at}.pre_feedforward_layernorm", hidden),
            computed_norm=_norm(loader, f"{at}.post_feedforward_layernorm", hidden),
            qk_norm=torch.cat(
                [q_norm.expand(shape.heads, dim), k_norm.expand(shape.kv_heads, dim)]
            ),
            qkv=loader.fused(qkv, [query, key, key], (hidden,), linear),
            output=loader.one(f"{at}.self_attn.o_proj.weight", (hidden, query), linear),
            gate_up=loader.fused(gate_up, [shape.ffn] * 2, (hidden,), linear),
            down=loader.one(f"{at}.mlp.down_proj.weight", (hidden, shape.ffn), linear),
        )

    def _embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return functional.embedding(tokens, self._embedding) * self._embedding_scale

    def _rotary(self, positions: torch.Tensor) -> Rotary:
        """Return cosines and sines of layers with a window, then those of the others."""
        local, full = (turns(positions, f, self.batching, self.dtype) for f in self._frequencies)
        return *local, *full

    def _layer(
        self, index: int, state: torch.Tensor, rotary: Rotary | None, attention: Attention
    ) -> torch.Tensor:
        layer, shape, linear = self._layers[index], self.shape, self.batching.linear
        rotary = rotary[2:] if self.windows[index] is None else rotary[:2]
        qkv = linear(self._rms(state, layer.attention_norm), layer.qkv)
        qkv = qkv.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        qk, v = qkv.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=1)
        turned = turn(self._rms(qk, layer.qk_norm), *rotary)
        q, k = turned.split([shape.heads, shape.kv_heads], dim=1)
        state += self._rms(linear(attention(q, k, v), layer.output), layer.attended_norm)
        gate_up = linear(self._rms(state, layer.ffn_norm), layer.gate_up)
        gate, up = gate_up.split(shape.ffn, dim=1)
        inner = self.batching.steady(_gelu_, gate).mul_(up)
        state += self._rms(linear(inner, layer.down), layer.computed_norm)
        return state

    def _final_norm(self, state: torch.Tensor) -> torch.Tensor:
        return self._rms(state, self._norm)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension; in float32, as the weight is."""
        normal = functional.rms_norm(x.float(), x.shape[-1:], None, self.shape.norm_eps)
        return (normal * weight).to(x.dtype)


def _norm(loader: Loader, name: str, size: int) -> torch.Tensor:
    return loader.one(f"{name}.weight", (size,), Kind.OFFSET).float() + 1.0


def _gelu_(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.gelu_(x, approximate="tanh")
