"""Times inside a step: attention, writing of KV, the layers around them, and the output head.

The first three are timed between one another, where they are slower than by themselves: what the
linear layers have read is out of the caches when attention comes, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from allocators.base import BlockTable, IntArray, Strided
from harness.cost.calibration import LAYOUTS
from harness.executors.model.decoder import Decoder
from harness.measure.calibrate.grids import Grid, tiles, up_to
from harness.measure.layouts import attention_call, fits, shuffled, side_by_side
from harness.measure.rounds import Rounds, Sampled, Table
from kernels import decode, new_slots, place, prefill, store
from kernels.memory import Backing

#: a longer prompt piece is computed for one layer, by itself: it fills the caches alone
LONG_PIECE = 512
#: tokens of a prompt piece where layers are measured
PIECE = 128
#: tokens of the probe of the machine's pace
PROBE_TOKENS = 64


class PassTimes(NamedTuple):
    """Seconds of one pass: of all layers without attention, and of one layer's KV and attention."""

    linear_s: float
    store_s: float
    attend_s: float


class StepParts:
    """Adds the parts of steps to `rounds`; `memory` is a paged pool of all layers."""

    def __init__(
        self, rounds: Rounds, grid: Grid, decoder: Decoder, memory: Backing, backend: str
    ) -> None:
        self._timer = rounds.timer
        self._rounds, self._grid, self._decoder, self._backend = rounds, grid, decoder, backend
        self._model, geometry = decoder.shape, memory.geometry
        self._page, self._slots = geometry.page_tokens, geometry.capacity_tokens
        paged = [(memory.keys(i), memory.values(i)) for i in range(self._model.layers)]
        flat = [(k.flatten(0, 1), v.flatten(0, 1)) for k, v in paged]
        self._caches = {"paged": paged, "contiguous": flat}
        for k, v in paged:
            k.normal_()
            v.normal_()
        self._order = np.random.default_rng(0).permutation(self._slots // self._page)

    def layers(self) -> tuple[Table, Table]:
        """All layers but attention, and one layer's writes, of steps of so many tokens."""
        tokens = [
            n for n in tiles(self._grid.tokens, self._decoder.batching.tile) if self._fits(1, n)
        ]
        linear, stores = [], []
        for n in tokens:
            lengths = np.full(-(-n // PIECE), PIECE)
            lengths[-1] -= lengths.sum() - n
            take = self._pass("paged", prefill, lengths, lengths)
            linear.append(self._rounds.add(lambda take=take: take().linear_s))
            stores.append(self._rounds.add(lambda take=take: take().store_s))
        return {"tokens": tokens, "seconds": linear}, {"tokens": tokens, "seconds": stores}

    def decode(self) -> dict[str, list[Table]]:
        """Attention of `batch` rows of one new token and `context_tokens` in all, one layer."""
        amounts = up_to(self._grid.context, self._model.max_context)

        def curve(name: str, batch: int) -> Table:
            # At least one context, however small the memory: a row of the table is never empty.
            least = max(1, self._slots // batch // self._page * self._page)
            contexts = [c for c in amounts if self._fits(batch, c)] or [least]
            ones = np.ones(batch, dtype=np.int64)
            seconds = [self._attention(name, decode, c * ones, ones) for c in contexts]
            return {"batch": batch, "context_tokens": contexts, "seconds": seconds}

        return {name: [curve(name, batch) for batch in self._grid.rows] for name in LAYOUTS}

    def prefill(self) -> dict[str, list[Table]]:
        """Attention of one prompt piece of `new_tokens` behind `past_tokens`, one layer."""
        amounts = up_to(self._grid.new, self._model.max_context)

        def curve(name: str, past: int) -> Table:
            new = [n for n in amounts if self._fits(1, past + n)]
            pieces = [(np.array([past + n]), np.array([n])) for n in new]
            seconds = [self._attention(name, prefill, *piece) for piece in pieces]
            return {"past_tokens": past, "new_tokens": new, "seconds": seconds}

        pasts = [n for n in self._grid.past if n < self._model.max_context]
        pasts = [n for n in pasts if self._fits(1, n + amounts[0])]
        return {name: [curve(name, past) for past in pasts] for name in LAYOUTS}

    def _attention(
        self, name: str, kernel: Callable[..., Any], lengths: IntArray, queries: IntArray
    ) -> Sampled:
        if queries.max() < LONG_PIECE:
            take = self._pass(name, kernel, lengths, queries)
            return self._rounds.add(lambda: take().attend_s)
        caches, layout = self._caches[name][0], self._layout(name, lengths)
        heads = self._model.heads
        return self._rounds.call(
            attention_call(kernel, heads, caches, layout, queries, self._backend)
        )

    def _pass(
        self, name: str, kernel: Callable[..., Any], lengths: IntArray, queries: IntArray
    ) -> Callable[[], PassTimes]:
        """Return what runs one pass of the decoder and takes the times of its parts."""
        caches, timer = self._caches[name], self._timer
        layout = self._layout(name, lengths)
        rows = place(layout, caches[0][0], queries)
        slots = torch.as_tensor(new_slots(layout, queries), device=timer.device)
        tokens = torch.arange(int(queries.sum()), device=timer.device) % self._model.vocab
        positions = torch.arange(len(tokens), device=timer.device) % self._model.max_context
        more = (None,) if kernel is prefill else ()
        scale, backend = self._decoder.scale, self._backend

        def take() -> PassTimes:
            marks: list[Any] = []

            def attend(
                layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
            ) -> torch.Tensor:
                marks.append(timer.mark())
                store(k, v, *caches[layer], slots, backend=backend)
                marks.append(timer.mark())
                out = kernel(q, *caches[layer], rows, *more, scale, backend=backend)
                marks.append(timer.mark())
                return out

            timer.synchronize()
            marks.append(timer.mark())
            self._decoder.hidden(tokens, positions, attend)
            marks.append(timer.mark())
            # From the start on: layers, store, attention, layers, store, attention, .., layers.
            seconds = np.array(timer.laps(marks))
            n = len(caches)
            return PassTimes(seconds[::3].sum(), seconds[1::3].sum() / n, seconds[2::3].sum() / n)

        return take

    # -- layouts ---------------------------------------------------------------------------------
    def _layout(self, name: str, lengths: IntArray) -> BlockTable | Strided:
        """Lay rows out side by side; pages in an order without any, as a pool in use has them."""
        if name == "contiguous":
            return side_by_side(lengths, self._page)
        return shuffled(lengths, self._page, self._order)

    def _fits(self, rows: int, length: int) -> bool:
        return fits(self._slots, rows, length, self._page)


def output_head(rounds: Rounds, grid: Grid, decoder: Decoder) -> Table:
    """The output head over `rows` rows, and the likeliest token of each, brought to the host."""

    def head(rows: int) -> Callable[[], Any]:
        numbers = np.random.default_rng(0).standard_normal((rows, decoder.shape.hidden))
        hidden = torch.as_tensor(numbers, device=rounds.timer.device).to(decoder.dtype)
        return lambda: decoder.logits(hidden).argmax(dim=-1).cpu()

    return rounds.table("rows", tiles(grid.rows, decoder.batching.tile), head)


def probe(rounds: Rounds, decoder: Decoder) -> Sampled:
    """All layers over 64 tokens without attention: to ask later whether the machine is as fast."""
    shape = decoder.shape
    ids = torch.arange(PROBE_TOKENS, device=rounds.timer.device)
    size = (PROBE_TOKENS, shape.heads, shape.head_dim)
    out = torch.zeros(size, dtype=decoder.dtype, device=rounds.timer.device)
    tokens, positions = ids % shape.vocab, ids % shape.max_context
    return rounds.call(lambda: decoder.hidden(tokens, positions, lambda layer, q, k, v: out))
