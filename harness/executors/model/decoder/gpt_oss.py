"""gpt-oss: sinks in every softmax, a window in every second layer, a mixture of experts.

Model card, arXiv 2508.10925, section 2; what it leaves open is as in the checkpoints' config.json.
Beside what Llama does:

- all linear layers have biases;
- each head has a sink, a logit that takes part in its softmax and has no value;
- rotary frequencies are YaRN's (arXiv 2309.00071), for 32 times 4,096 positions;
- a token visits the experts of its largest router logits, weighted by the softmax of these;
- an expert's gate and linear part are clamped, and multiplied as (up + 1) gate sigmoid(a gate).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from harness.executors.model.decoder.core import Attention, Decoder, Rotary
from harness.executors.model.decoder.llama import frequencies, turn, turns
from harness.executors.model.decoder.weights import Kind, Loader

#: YaRN's: positions are stretched by `factor`; pairs that turn more than `beta_fast` times within
#: `original` positions are left as they are, those that turn less than `beta_slow` times stretched
YARN = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "original": 4096}
#: of the experts' gates
ALPHA, LIMIT = 1.702, 7.0


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert; the rows of `gate_up` take turns."""

    gate_up: torch.Tensor  # [2 ffn, hidden]
    gate_up_bias: torch.Tensor
    down: torch.Tensor  # [hidden, ffn]
    down_bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class GptOssLayer:
    """One layer; weights are [out, in], biases [out], norms [hidden]."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    output: torch.Tensor
    output_bias: torch.Tensor
    ffn_norm: torch.Tensor
    router: torch.Tensor
    router_bias: torch.Tensor
    experts: list[Expert]


class GptOssDecoder(Decoder):
    """The gpt_oss family; see the module."""

    def _load(self, loader: Loader) -> None:
        shape = self.shape
        table, layers = (shape.vocab, shape.hidden), range(shape.layers)
        self._embedding = loader.one("model.embed_tokens.weight", table, Kind.EMBEDDING)
        self.sinks = [
            loader.one(f"model.layers.{i}.self_attn.sinks", (shape.heads,), Kind.SINK)
            for i in layers
        ]
        self._layers = [self._load_layer(loader, f"model.layers.{i}") for i in layers]
        self._norm = loader.one("model.norm.weight", (shape.hidden,), Kind.NORM)
        self._head = loader.one("lm_head.weight", table, Kind.EMBEDDING)
        self._frequencies = yarn(shape.rope_theta, shape.head_dim).to(self.device)
        self._turn_scale = 0.1 * math.log(YARN["factor"]) + 1.0

    def _load_layer(self, loader: Loader, at: str) -> GptOssLayer:
        shape = self.shape
        hidden, dim, linear, bias = shape.hidden, shape.head_dim, Kind.LINEAR, Kind.BIAS
        query, key = shape.heads * dim, shape.kv_heads * dim
        parts, rows = [f"{at}.self_attn.{one}_proj" for one in "qkv"], [query, key, key]
        router = f"{at}.mlp.router"
        return GptOssLayer(
            attention_norm=loader.one(f"{at}.input_layernorm.weight", (hidden,), Kind.NORM),
            qkv=loader.fused([f"{part}.weight" for part in parts], rows, (hidden,), linear),
            qkv_bias=loader.fused([f"{part}.bias" for part in parts], rows, (), bias),
            output=loader.one(f"{at}.self_attn.o_proj.weight", (hidden, query), linear),
            output_bias=loader.one(f"{at}.self_attn.o_proj.bias", (hidden,), bias),
            ffn_norm=loader.one(f"{at}.post_attention_layernorm.weight", (hidden,), Kind.NORM),
            router=loader.one(f"{router}.weight", (shape.experts, hidden), linear),
            router_bias=loader.one(f"{router}.bias", (shape.experts,), bias),
            experts=self._load_experts(loader, f"{at}.mlp.experts"),
        )

    def _load_experts(self, loader: Loader, at: str) -> list[Expert]:
        """Checkpoints have the experts of a layer in one tensor, [experts, in, out]."""
        count, hidden, ffn = self.shape.experts, self.shape.hidden, self.shape.ffn
        up = loader.one(f"{at}.gate_up_proj", (count, hidden, 2 * ffn), Kind.LINEAR)
        up_bias = loader.one(f"{at}.gate_up_proj_bias", (count, 2 * ffn), Kind.BIAS)
        down = loader.one(f"{at}.down_proj", (count, ffn, hidden), Kind.LINEAR)
        down_bias = loader.one(f"{at}.down_proj_bias", (count, hidden), Kind.BIAS)
        return [
            Expert(up[i].t().contiguous(), up_bias[i], down[i].t().contiguous(), down_bias[i])
            for i in range(count)
        ]

    def _embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return functional.embedding(tokens, self._embedding)

    def _rotary(self, positions: torch.Tensor) -> Rotary:
        return turns(positions, self._frequencies, self.batching, self.dtype, self._turn_scale)

    def _layer(
        self, index: int, state: torch.Tensor, rotary: Rotary | None, attention: Attention
    ) -> torch.Tensor:
        layer, shape, linear = self._layers[index], self.shape, self.batching.linear
        qkv = linear(self._rms(state, layer.attention_norm), layer.qkv, layer.qkv_bias)
        qkv = qkv.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        qk, v = qkv.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=1)
        q, k = turn(qk, *rotary).split([shape.heads, shape.kv_heads], dim=1)
        state += linear(attention(q, k, v), layer.output, layer.output_bias)
        state += self._mixture(layer, self._rms(state, layer.ffn_norm))
        return state

    def _mixture(self, layer: GptOssLayer, x: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of what each token's experts make of it, in their order.

        Where the host may not know who was chosen, each expert sees every token, and adds nothing
        to those that did not choose it.
        """
        logits = self.batching.linear(x, layer.router, layer.router_bias)
        chosen, experts = logits.topk(self.shape.active_experts, dim=-1)
        weights = chosen.softmax(dim=-1)
        out = torch.zeros_like(x)
        if self._captured:
            shares = torch.zeros_like(logits).scatter_(1, experts, weights)
            for expert, share in zip(layer.experts, shares.unbind(1), strict=True):
                out += self._expert(expert, x) * share[:, None]
            return out
        for number in experts.unique().tolist():
            token, choice = torch.where(experts == number)
            found = self._expert(layer.experts[number], self.batching.pad(x[token]))
            out[token] += found[: len(token)] * weights[token, choice, None]
        return out

    def _expert(self, expert: Expert, x: torch.Tensor) -> torch.Tensor:
        linear, steady = self.batching.linear, self.batching.steady
        gate_up = linear(x, expert.gate_up, expert.gate_up_bias)
        gate = gate_up[:, ::2].clamp(max=LIMIT)
        up = gate_up[:, 1::2].clamp(min=-LIMIT, max=LIMIT)
        inner = (up + 1) * (gate * steady(torch.sigmoid_, gate * ALPHA))
        return linear(inner, expert.down, expert.down_bias)

    def _final_norm(self, state: torch.Tensor) -> torch.Tensor:
        return self._rms(state, self._norm)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, (self.shape.hidden,), weight, self.shape.norm_eps)


def yarn(theta: float, head_dim: int) -> torch.Tensor:
    """Return YaRN's angle of each pair at position 1, [head_dim / 2] (section 3.2)."""

    def pair(turns: float) -> float:
        """Return which pair turns so many times within the original positions."""
        wavelength = YARN["original"] / (turns * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(theta))

    low, high = max(pair(YARN["beta_fast"]), 0), min(pair(YARN["beta_slow"]), head_dim - 1)
    plain = frequencies(theta, head_dim)
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    kept = 1 - ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)
    return plain / YARN["factor"] * (1 - kept) + plain * kept
