"""OPT: LayerNorm before each half of a layer, learned positions, ReLU, biases everywhere.

Zhang et al., arXiv 2205.01068; the released checkpoints keep two unused rows in front of the
positions' embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from harness.cost.shapes import OPT_POSITION_OFFSET
from harness.executors.model.decoder.core import Attention, Decoder
from harness.executors.model.decoder.weights import Kind, Loader

#: a weight and its bias
Affine = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class OptLayer:
    """One layer; weights are [out, in] (norms [hidden]), biases [out]."""

    attention_norm: Affine
    qkv: Affine
    output: Affine
    ffn_norm: Affine
    up: Affine
    down: Affine


class OptDecoder(Decoder):
    """The opt family; see the module."""

    def _load(self, loader: Loader) -> None:
        shape, at = self.shape, "model.decoder"
        self._embedding = loader.one(
            f"{at}.embed_tokens.weight", (shape.vocab, shape.hidden), Kind.EMBEDDING
        )
        self._positions = loader.one(
            f"{at}.embed_positions.weight",
            (shape.max_context + OPT_POSITION_OFFSET, shape.hidden),
            Kind.EMBEDDING,
        )
        self._layers = [
            self._load_layer(loader, f"{at}.layers.{index}") for index in range(shape.layers)
        ]
        self._norm = _norm(loader, f"{at}.final_layer_norm", shape.hidden)
        self._head = self._embedding

    def _load_layer(self, loader: Loader, at: str) -> OptLayer:
        shape = self.shape
        hidden, query = shape.hidden, shape.heads * shape.head_dim
        qkv = [f"{at}.self_attn.{one}_proj" for one in "qkv"]
        key = shape.kv_heads * shape.head_dim
        return OptLayer(
            attention_norm=_norm(loader, f"{at}.self_attn_layer_norm", hidden),
            qkv=_linear(loader, qkv, [query, key, key], hidden),
            output=_linear(loader, [f"{at}.self_attn.out_proj"], [hidden], query),
            ffn_norm=_norm(loader, f"{at}.final_layer_norm", hidden),
            up=_linear(loader, [f"{at}.fc1"], [shape.ffn], hidden),
            down=_linear(loader, [f"{at}.fc2"], [hidden], shape.ffn),
        )

    def _embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        state = functional.embedding(tokens, self._embedding)
        return state + functional.embedding(positions + OPT_POSITION_OFFSET, self._positions)

    def _layer(
        self,
        index: int,
        state: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        attention: Attention,
    ) -> torch.Tensor:
        layer, shape, linear = self._layers[index], self.shape, self.batching.linear
        qkv = linear(self._normalize(state, layer.attention_norm), *layer.qkv)
        qkv = qkv.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        state += linear(attention(q, k, v), *layer.output)
        inner = linear(self._normalize(state, layer.ffn_norm), *layer.up).relu_()
        state += linear(inner, *layer.down)
        return state

    def _final_norm(self, state: torch.Tensor) -> torch.Tensor:
        return self._normalize(state, self._norm)

    def _normalize(self, x: torch.Tensor, norm: Affine) -> torch.Tensor:
        return functional.layer_norm(x, (self.shape.hidden,), *norm, self.shape.norm_eps)


def _norm(loader: Loader, name: str, size: int) -> Affine:
    return (
        loader.one(f"{name}.weight", (size,), Kind.NORM),
        loader.one(f"{name}.bias", (size,), Kind.BIAS),
    )


def _linear(loader: Loader, names: list[str], rows: list[int], inputs: int) -> Affine:
    return (
        loader.fused([f"{name}.weight" for name in names], rows, (inputs,), Kind.LINEAR),
        loader.fused([f"{name}.bias" for name in names], rows, (), Kind.BIAS),
    )
