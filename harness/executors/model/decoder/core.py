"""What every decoder does: embed, run the layers over a flat batch, and turn hidden into logits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch

from harness.cost.shapes import ModelShape
from harness.executors.model.decoder.batching import Batching
from harness.executors.model.decoder.layers import layer_windows
from harness.executors.model.decoder.weights import Loader

#: what turns q and k, once for all layers: cosines and sines
Rotary = tuple[torch.Tensor, ...]
#: takes q, k, v of the padded batch, returns the padded output as [rows, heads * head_dim]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Attend(Protocol):
    """Stores the new keys and values of one layer and attends to all that the queries may read."""

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Return attention's output, [T, heads, head_dim].

        q: [T, heads, head_dim]; k, v: [T, kv_heads, head_dim], rotary already applied to q and k.
        All three may be strided over tokens; the numbers of one head are adjacent.  They are only
        valid during the call.
        """
        ...


class Decoder(ABC):
    """One model's weights and its forward pass over a flat batch of tokens.

    A token's row depends on its number, its position and what `attend` returns for it.  With
    `batch_invariant` it does so to the bit, whatever else is in the batch.  `hidden` and `logits`
    return inference tensors: copy before changing them in place outside `torch.inference_mode`.
    """

    def __init__(self, shape: ModelShape, loader: Loader, batch_invariant: bool) -> None:
        self.shape = shape
        self.device = loader.device
        self.dtype = loader.dtype
        #: what scores are multiplied with
        self.scale = 1.0 / math.sqrt(shape.query_scalar or shape.head_dim)
        #: how many positions a query of each layer reads, itself the last; None: all
        self.windows: list[int | None] = layer_windows(shape)
        #: a logit for each head of each layer, [layers][heads], that takes part in its softmax and
        #: has no value; None: there are none
        self.sinks: list[torch.Tensor] | None = None
        self.batching = Batching(loader.device, batch_invariant)
        #: whether the pass that runs is being captured, where the host can read no number
        self._captured = False
        self._load(loader)

    @torch.inference_mode()
    def hidden(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        *,
        captured: bool = False,
    ) -> torch.Tensor:
        """Return the hidden state after the final norm, [T, hidden].

        tokens, positions: int64 [T] on `device`; tokens < vocab and, with learned positions,
        positions < max_context (neither is checked: that would wait for the device).  Calls
        `attend` once a layer, in order, with exactly T rows; padding never reaches it.
        With `captured` nothing is computed that would need to know a number on the host; the result
        is the same.
        """
        self._captured, count = captured, tokens.shape[0]
        if count == 0:
            return torch.empty((0, self.shape.hidden), dtype=self.dtype, device=self.device)
        pad = self.batching.pad
        positions = pad(positions)
        state, rotary = self._embed(pad(tokens), positions), self._rotary(positions)
        for layer in range(self.shape.layers):

            def attention(
                q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int = layer
            ) -> torch.Tensor:
                return pad(attend(layer, q[:count], k[:count], v[:count]).flatten(1))

            state = self._layer(layer, state, rotary, attention)
        return self._final_norm(state)[:count]

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return each row's scores of the vocabulary.  hidden: [N, hidden]; float32 [N, vocab]."""
        padded = self.batching.pad(hidden)
        return self.batching.linear(padded, self._head)[: hidden.shape[0]].float()

    # -- what a family defines -----------------------------------------------------------------
    #: [vocab, hidden]; the embedding itself if they are tied
    _head: torch.Tensor

    @abstractmethod
    def _load(self, loader: Loader) -> None:
        """Read every weight from `loader`."""

    @abstractmethod
    def _embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return the first layer's input, [rows, hidden], in memory of its own."""

    def _rotary(self, positions: torch.Tensor) -> Rotary | None:
        """Return what turns q and k, once for all layers; None without rotary embeddings."""
        return None

    @abstractmethod
    def _layer(
        self,
        index: int,
        state: torch.Tensor,
        rotary: Rotary | None,
        attention: Attention,
    ) -> torch.Tensor:
        """Return the next layer's input; may overwrite `state`, [rows, hidden]."""

    @abstractmethod
    def _final_norm(self, state: torch.Tensor) -> torch.Tensor:
        """Return the normalized state, [rows, hidden]."""
