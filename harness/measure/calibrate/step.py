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
from harness.executors.model.decoder import Decoder
from harness.measure.calibrate.grids import Grid, tiles, up_to
from harness.measure.layouts import attention_call, fits, shuffled, side_by_side
from harness.measure.rounds import Rounds, Sampled, Table
from kernels import decode, new_slots, place, prefill, store
from kernels.memory import Backing
from kernels.rows import as_pages

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
        self._flat = [
            (memory.keys(i).flatten(0, 1), memory.values(i).flatten(0, 1))
            for i in range(self._model.layers)
        ]
        for k, v in self._flat:
            k.normal_()
            v.normal_()

    def layers(self) -> tuple[Table, Table]:
        """All layers but attention, and one layer's writes, of steps of so many tokens."""
        tokens = [
            n
            for n in tiles(self._grid.tokens, self._decoder.batching.tile)
            if self._fits(1, n, self._page)
        ]
        linear, stores = [], []
        for n in tokens:
            lengths = np.full(-(-n // PIECE), PIECE)
            lengths[-1] -= lengths.sum() - n
            take = self._pass(self._page, prefill, lengths, lengths)
            linear.append(self._rounds.add(lambda take=take: take().linear_s))
            stores.append(self._rounds.add(lambda take=take: take().store_s))
        return {"tokens": tokens, "seconds": linear}, {"tokens": tokens, "seconds": stores}

    def decode(self) -> Table:
        """Attention of `batch` rows of one new token and `context_tokens` in all, one layer."""
        amounts = up_to(self._grid.context, self._model.max_context)

        def curve(page: int | None, batch: int) -> Table:
            # At least one context, however small the memory: a row of the table is never empty.
            tokens = page or self._page
            least = max(1, self._slots // batch // tokens * tokens)
            contexts = [c for c in amounts if self._fits(batch, c, page)] or [least]
            ones = np.ones(batch, dtype=np.int64)
            seconds = [self._attention(page, decode, c * ones, ones) for c in contexts]
            return {"batch": batch, "context_tokens": contexts, "seconds": seconds}

        def curves(page: int | None) -> list[Table]:
            return [curve(page, n) for n in self._grid.batches if n == 1 or self._fits(n, 1, page)]

        return self._by_page(curves)

    def prefill(self) -> Table:
        """Attention of one prompt piece of `new_tokens` behind `past_tokens`, one layer."""
        amounts = up_to(self._grid.new, self._model.max_context)

        def curve(page: int | None, past: int) -> Table:
            new = [n for n in amounts if self._fits(1, past + n, page)]
            pieces = [(np.array([past + n]), np.array([n])) for n in new]
            seconds = [self._attention(page, prefill, *piece) for piece in pieces]
            return {"past_tokens": past, "new_tokens": new, "seconds": seconds}

        def curves(page: int | None) -> list[Table]:
            return [curve(page, n) for n in pasts if self._fits(1, n + amounts[0], page)]

        pasts = [n for n in self._grid.past if n < self._model.max_context]
        return self._by_page(curves)

    def _by_page(self, curves: Callable[[int | None], list[Table]]) -> Table:
        """Return the curves of contiguous rows, and of rows in pages of each size with room."""
        sizes = sorted({*self._grid.pages, self._page})
        sizes = [page for page in sizes if page <= self._slots]
        paged = [{"page_tokens": page, "rows": curves(page)} for page in sizes]
        return {"contiguous": curves(None), "paged": paged}

    def _attention(
        self, page: int | None, kernel: Callable[..., Any], lengths: IntArray, queries: IntArray
    ) -> Sampled:
        if queries.max() < LONG_PIECE:
            take = self._pass(page, kernel, lengths, queries)
            return self._rounds.add(lambda: take().attend_s)
        caches, layout = self._caches(page)[0], self._layout(page, lengths)
        heads = self._model.heads
        return self._rounds.call(
            attention_call(kernel, heads, caches, layout, queries, self._backend)
        )

    def _pass(
        self, page: int | None, kernel: Callable[..., Any], lengths: IntArray, queries: IntArray
    ) -> Callable[[], PassTimes]:
        """Return what runs one pass of the decoder and takes the times of its parts."""
        caches, timer = self._caches(page), self._timer
        layout = self._layout(page, lengths)
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
    def _caches(self, page: int | None) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """View the pool of each layer as pages of so many tokens; None: as slots."""
        if page is None:
            return self._flat
        return [(as_pages(k, page), as_pages(v, page)) for k, v in self._flat]

    def _layout(self, page: int | None, lengths: IntArray) -> BlockTable | Strided:
        """Lay rows out side by side; pages in an order without any, as a pool in use has them."""
        if page is None:
            return side_by_side(lengths, self._page)
        order = np.random.default_rng(0).permutation(self._slots // page)
        return shuffled(lengths, page, order)

    def _fits(self, rows: int, length: int, page: int | None) -> bool:
        return fits(self._slots, rows, length, page or self._page)


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
