"""Where weights come from, and how they reach the device without a second copy of the model.

A `Source` yields one tensor by its Hugging Face name; a `Loader` puts it, or several fused into one
matrix, on the device in the decoder's type.  So at most one tensor exists twice at any time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import torch

#: standard deviation of random biases: small, yet seen by every comparison
BIAS_STD = 0.02


class Kind(Enum):
    """What a weight is for; random weights are drawn by it."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    SCALED = "scaled"  # embeddings that are multiplied by sqrt(hidden)
    NORM = "norm"
    OFFSET = "offset"  # of a norm whose weight is 1 + this (Gemma)
    BIAS = "bias"
    SINK = "sink"


#: standard deviation of random weights, over 1 / sqrt(fan in)
STD = {Kind.EMBEDDING: 2.0, Kind.SCALED: 0.5}


class Source(Protocol):
    """Gives a weight by name."""

    def __call__(self, name: str, shape: tuple[int, ...], kind: Kind) -> torch.Tensor:
        """Return the weight, of that shape and any floating type, on any device."""
        ...


class Loader:
    """Puts weights on `device` as `dtype`."""

    def __init__(self, source: Source, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._source = source

    def one(self, name: str, shape: tuple[int, ...], kind: Kind) -> torch.Tensor:
        """Return one weight."""
        return self.fused([name], [shape[0]], shape[1:], kind)

    def fused(
        self, names: Sequence[str], rows: Sequence[int], rest: tuple[int, ...], kind: Kind
    ) -> torch.Tensor:
        """Return weights `names` of shapes [rows[i], *rest], one below the other."""
        out = torch.empty((sum(rows), *rest), dtype=self.dtype, device=self.device)
        for part, name, count in zip(out.split(list(rows)), names, rows, strict=True):
            part.copy_(self._source(name, (count, *rest), kind))
        return out


class RandomSource:
    """Seeded random weights: each tensor has a generator of its own, seeded by `seed` and its name.

    Drawn in float32: linear layers with 1 / sqrt(fan in), which keeps the scale of what passes
    through; embeddings and the head with 2 / sqrt(hidden), so that logits spread by about 2; norms
    are 1.  Where embeddings are scaled up (Gemma) they are a quarter of that, and norms are 2: what
    layers add has to outweigh the embedding, or a head tied to it repeats every token.  Drawn on
    the CPU, the same seed gives the same weights on every device; drawn on a GPU (`device`), the
    same only on the same kind of device.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._seed = seed
        self._device = device

    def __call__(self, name: str, shape: tuple[int, ...], kind: Kind) -> torch.Tensor:
        """Return the weight in float32."""
        if kind in (Kind.NORM, Kind.OFFSET):
            return torch.ones(shape)
        generator = torch.Generator(self._device).manual_seed(tensor_seed(self._seed, name))
        out = torch.randn(shape, generator=generator, device=self._device)
        return out.mul_(_std(kind, shape[-1]))


def tensor_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed for the tensor `name` of the model `seed`."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _std(kind: Kind, fan_in: int) -> float:
    if kind is Kind.SINK:
        return 1.0
    if kind is Kind.BIAS:
        return BIAS_STD
    return STD.get(kind, 1.0) / math.sqrt(fan_in)
