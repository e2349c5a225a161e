"""Times of a decoder's output head, and one number that stands for the machine's pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.measure.calibrate.grids import tiles
from harness.measure.rounds import Rounds, Sampled

if TYPE_CHECKING:
    from harness.executors.model.decoder import Decoder

Table = dict[str, Any]
PROBE_TOKENS = 64


def probe(rounds: Rounds, decoder: Decoder) -> Sampled:
    """All layers over 64 tokens without attention: to ask later whether the machine is as fast."""
    shape = decoder.shape
    ids = torch.arange(PROBE_TOKENS, device=rounds.timer.device)
    size = (PROBE_TOKENS, shape.heads, shape.head_dim)
    out = torch.zeros(size, dtype=decoder.dtype, device=rounds.timer.device)
    tokens, positions = ids % shape.vocab, ids % shape.max_context
    return rounds.call(lambda: decoder.hidden(tokens, positions, lambda layer, q, k, v: out))


def sample(rounds: Rounds, amounts: tuple[int, ...], decoder: Decoder) -> Table:
    """The output head over `rows` rows, and the likeliest token of each, brought to the host."""

    def point(rows: int) -> Sampled:
        numbers = np.random.default_rng(0).standard_normal((rows, decoder.shape.hidden))
        hidden = torch.as_tensor(numbers, device=rounds.timer.device).to(decoder.dtype)
        return rounds.call(lambda: decoder.logits(hidden).argmax(dim=-1).cpu())

    rows = tiles(amounts, decoder.batching.tile)
    return {"rows": rows, "seconds": [point(n) for n in rows]}
