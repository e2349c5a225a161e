"""Decoders and attention callbacks that the decoder's tests share."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
import yaml

import conf
from allocators.base import Strided
from harness.cost.shapes import ModelShape
from harness.executors.model.decoder import Decoder, build_decoder
from harness.executors.model.decoder.weights import Loader
from kernels import place, prefill, store

CONF = Path(conf.__file__).parent
LLAMA_TINY = ModelShape(**yaml.safe_load((CONF / "model" / "llama-tiny.yaml").read_text()))
QWEN_TINY = ModelShape(
    **{**vars(LLAMA_TINY), "name": "Qwen-tiny", "qkv_bias": True, "qk_norm": True, "layers": 2}
)
OPT_TINY = ModelShape(
    name="OPT-tiny",
    family="opt",
    layers=2,
    hidden=96,
    heads=3,
    kv_heads=3,
    head_dim=32,
    ffn=200,
    vocab=300,
    max_context=512,
    gated_ffn=False,
    tied_embeddings=True,
    learned_positions=True,
    linear_bias=True,
)


def build(shape: ModelShape, weights: Path | None = None, **options: object) -> Decoder:
    """Build on the CPU in float32, batch-invariantly, unless `options` say otherwise."""
    given = {
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "seed": 3,
        "batch_invariant": True,
        **options,
    }
    return build_decoder(shape, weights=weights, **given)


def loaded_bytes(shape: ModelShape, weights: Path | None = None, **options: object) -> int:
    """Return the bytes of all weights that a decoder loads; tied ones count once."""
    loaded: list[torch.Tensor] = []
    fused = Loader.fused

    def noted(*args: object) -> torch.Tensor:
        loaded.append(fused(*args))
        return loaded[-1]

    with mock.patch.object(Loader, "fused", noted):
        build(shape, weights, **options)
    return sum(weight.nbytes for weight in loaded)


class Prompt:
    """An `Attend` for one whole prompt, on flat memory and the reference back end."""

    def __init__(self, decoder: Decoder, tokens: int) -> None:
        self._decoder = decoder
        self._layout = Strided(base=[0], lengths=[tokens])
        self._tokens = tokens

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        # Of a single token a slice is contiguous whatever its strides are.
        keys, values = torch.stack((k, v))
        return prefill(
            q.contiguous(),
            keys,
            values,
            self._layout,
            [self._tokens],
            self._decoder.scale,
            window=self._decoder.windows[layer],
            sinks=self._decoder.sinks and self._decoder.sinks[layer],
        )

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(self._tokens)
        return self._decoder.logits(self._decoder.hidden(tokens, positions, self))


class DecodeStep:
    """An `Attend` for one decode step of many sequences, whose past is random but their own.

    Sequence i has position `positions[i]` and fills its own stretch of the memory, so that a
    subset of the sequences, in any order, reads exactly what it reads among all of them.
    """

    def __init__(self, decoder: Decoder, sequences: int, backend: str, longest: int = 24) -> None:
        shape = decoder.shape
        generator = torch.Generator().manual_seed(11)
        size = (shape.layers, 2, sequences * longest, shape.kv_heads, shape.head_dim)
        self._memory = torch.randn(size, generator=generator)
        self._decoder, self._backend, self._longest = decoder, backend, longest
        self.tokens = torch.randint(0, shape.vocab, (sequences,), generator=generator)
        self.positions = torch.randint(0, longest, (sequences,), generator=generator)

    def hidden(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of a step of these sequences, in this order."""
        memory = self._memory.clone().to(self._decoder.dtype)
        positions, base = self.positions[rows], rows * self._longest
        layout = Strided(base=base.numpy(), lengths=(positions + 1).numpy())
        placed = place(layout, memory[0, 0], [1] * len(rows))

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            assert len(q) == len(k) == len(v) == len(rows)
            keys, values = memory[layer]
            store(k, v, keys, values, base + positions)
            scale = self._decoder.scale
            return prefill(q, keys, values, placed, None, scale, backend=self._backend)

        return self._decoder.hidden(self.tokens[rows], positions, attend)
