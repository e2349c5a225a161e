"""What the layers of a model keep: layers that keep the same are a *layer group*.

A model all of whose layers keep the keys and values of every token is *uniform*, and has none of
these: one slot of it holds a token in every layer.  In a model with layer groups a position has a
slot in each layer group that still needs it, and slots of different layer groups have different
bytes, so bytes are what they share (Jenga, SOSP 2025, arXiv 2503.18292, section 3).

| kind | what it keeps of a sequence |
|---|---|
| `full` | keys and values of every token |
| `latent` | a compressed latent of every token, in place of keys and values (DeepSeek-V2) |
| `sliding` | keys and values of the last `window` tokens, the one being computed included |
| `chunked` | those of the chunk of `window` tokens that the token being computed is in (Llama 4) |
| `state` | one slot, overwritten by each token (Mamba, linear attention) |
| `cross` | keys and values of `encoder_tokens` tokens of an encoder, written with the prompt |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

KINDS = ("full", "latent", "sliding", "chunked", "state", "cross")
#: kinds in which each token of a sequence takes a slot as it is computed
TOKEN_KINDS = ("full", "latent", "sliding", "chunked")
#: those of them that keep every token
KEEPING_KINDS = ("full", "latent")
#: kinds of which a slot is not read any more once a sequence is long enough
WINDOW_KINDS = ("sliding", "chunked")


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that keep the same: `slot_bytes` are those of one slot, all layers and ranks together.

    `window` is that of a sliding kind, or the chunk of a chunked one, in tokens.
    """

    kind: str
    layers: int
    slot_bytes: int
    window: int = 0
    encoder_tokens: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.layers < 1 or self.slot_bytes < 1:
            raise ValueError(f"a layer group needs layers and slot_bytes >= 1, got {self}")
        if (self.window >= 1) != (self.kind in WINDOW_KINDS):
            raise ValueError(f"a window is for {' and '.join(WINDOW_KINDS)} alone, got {self}")
        if (self.encoder_tokens >= 1) != (self.kind == "cross"):
            raise ValueError(f"encoder_tokens are for cross alone, got {self}")

    @property
    def grows(self) -> bool:
        """Whether each token of a sequence takes a slot."""
        return self.kind in TOKEN_KINDS

    def slots(self, lengths: IntArray) -> IntArray:
        """Return how many slots sequences of these lengths have ever been given."""
        if self.grows:
            return lengths
        return np.where(lengths > 0, self.encoder_tokens or 1, 0)

    def first_read(self, position: IntArray) -> IntArray:
        """Return the first slot that a token at `position` reads; all from there on are live."""
        if self.kind == "sliding":
            return np.maximum(position - (self.window - 1), 0)
        if self.kind == "chunked":
            return position // self.window * self.window
        return np.zeros_like(position)
