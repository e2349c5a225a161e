"""Times of a decoder's layers without their attention, and of its output head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.calibrate.bench import Bench, Point
from harness.calibrate.grids import Grid

if TYPE_CHECKING:
    from harness.executors.decoder import Decoder

Table = dict[str, Any]


def linear(bench: Bench, grid: Grid, decoder: Decoder) -> Table:
    """All layers over `tokens` tokens of a step, with an attention that does nothing."""
    shape = decoder.shape

    def point(tokens: int) -> Point:
        ids = torch.arange(tokens, device=bench.device) % shape.vocab
        at = torch.arange(tokens, device=bench.device) % shape.max_context
        out = torch.zeros(tokens, shape.heads, shape.head_dim, device=bench.device).to(
            decoder.dtype
        )
        return bench.call(lambda: decoder.hidden(ids, at, lambda layer, q, k, v: out))

    tokens = _tiles(grid.tokens, decoder.batching.tile)
    return {"tokens": tokens, "seconds": [point(n) for n in tokens]}


def sample(bench: Bench, grid: Grid, decoder: Decoder) -> Table:
    """The output head over `rows` rows, and the likeliest token of each, brought to the host."""

    def point(rows: int) -> Point:
        numbers = np.random.default_rng(0).standard_normal((rows, decoder.shape.hidden))
        hidden = torch.as_tensor(numbers, device=bench.device).to(decoder.dtype)
        return bench.call(lambda: decoder.logits(hidden).argmax(dim=-1).cpu())

    rows = _tiles(grid.rows, decoder.batching.tile)
    return {"rows": rows, "seconds": [point(n) for n in rows]}


def _tiles(amounts: tuple[int, ...], tile: int) -> list[int]:
    """Return the amounts in whole tiles: what lies between costs as much as the next."""
    return sorted({-(-n // tile) * tile for n in amounts})
