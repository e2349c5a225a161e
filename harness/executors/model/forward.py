"""One pass of the decoder over pieces of sequences whose KV lies where the allocator says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

import kernels
from allocators.base import Allocator, BlockTable, IntArray, Layout, Strided
from harness.executors.model.graphs import Caches, Capture, DecodeGraphs, scratch_like
from kernels.memory import Backing
from kernels.rows import Rows, as_pages

if TYPE_CHECKING:
    from harness.executors.model.decoder import Decoder

#: tokens of a row on which a warm-up runs at most; so many fill the largest tile of any prefill
WARM_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Pieces:
    """Positions `starts[i]`..`stops[i]` - 1 of sequence `rows[i]`, and their `tokens` in one row.

    KV of the positions before is in memory; single positions (who decodes) come first.
    """

    rows: IntArray
    starts: IntArray
    stops: IntArray
    tokens: IntArray  # [sum of stops - starts]


class Forward:
    """Runs pieces through a decoder, with attention over real memory."""

    def __init__(
        self,
        decoder: Decoder,
        allocator: Allocator,
        memory: Backing,
        backend: str,
        *,
        single: bool = False,
        capture: Capture | None = None,
    ) -> None:
        """With `capture`, passes in which all decode are captured and replayed.

        `single`: each token attends by itself, as in decoding, for a back end whose prefill adds in
        another order; a recomputed sequence then has the same bits.
        """
        self._decoder, self._allocator, self._memory = decoder, allocator, memory
        self._backend, self._single = backend, single
        layers = range(allocator.geometry.layers)
        self._caches = [(memory.keys(i), memory.values(i)) for i in layers]
        self._scratch = scratch_like(self._caches, WARM_TOKENS)
        self._graphs = None
        if capture is not None:
            self._graphs = DecodeGraphs(
                self._replayed, self._caches, self._scratch, allocator.geometry, capture
            )

    def run(self, pieces: Pieces) -> torch.Tensor:
        """Compute the pieces and store their KV; return the last hidden state of each, [S, H]."""
        layout = self._allocator.layout(pieces.rows)
        # A prompt may be computed before the private tokens behind it, which the layout counts.
        layout = replace(layout, lengths=pieces.stops)
        if self._graphs is not None and len(pieces.tokens) == len(pieces.rows):
            return self._graphs.run(layout, torch.as_tensor(pieces.tokens))
        return self._pass(self._caches, layout, pieces)

    def warm_up(self) -> None:
        """Compile, load and capture what a run needs: no step is timed cold."""
        for layout in self._warm_layouts():
            n = int(layout.lengths[0])
            # Many new tokens, two, one: a prefill may have a kernel for few.
            for start in sorted({0, max(0, n - 2), n - 1}):
                tokens = np.zeros(n - start, dtype=np.int64)
                pieces = Pieces(np.zeros(1, int), np.array([start]), layout.lengths, tokens)
                self.logits(self._pass(self._scratch, layout, pieces))
        # What grants copy within memory is moved by a kernel of its own.
        nothing = np.array([[0, 1, 1]])
        kernels.copy_slots(self._scratch[0], nothing, backend=self._memory.mover)
        if self._graphs is not None:
            self._graphs.prepare(layout)

    def _warm_layouts(self) -> Iterator[Layout]:
        """Yield a row of scratch memory for each way in which rows may lie in pages."""
        n = min(WARM_TOKENS, self._allocator.geometry.max_len)
        if self._allocator.block_tables:
            page = self._caches[0][0].shape[1]
            # The pages of scratch memory over and over: what lies in them plays no part.
            table = np.arange(-(-n // page))[None] % 2
            yield BlockTable(page, table, np.array([n]))
            return
        pages, page = as_pages(self._scratch[0][0], None).shape[:2]
        yield Strided(np.zeros(1, int), np.array([min(page, n)]))
        if pages > 1 and page < self._allocator.geometry.max_len:
            # A kernel of its own reads rows that run over the end of a page.
            yield Strided(np.array([page - 1]), np.array([min((pages - 1) * page, n)]))

    def close(self) -> None:
        """Let go of the memory's views."""
        self._caches, self._graphs = [], None

    def _pass(self, caches: Caches, layout: Layout, pieces: Pieces) -> torch.Tensor:
        queries = pieces.stops - pieces.starts
        ends = np.cumsum(queries)
        first = np.repeat(pieces.starts - (ends - queries), queries)
        device = self._memory.device
        tokens = torch.as_tensor(pieces.tokens, device=device)
        positions = torch.as_tensor(np.arange(len(pieces.tokens)) + first, device=device)
        cache = caches[0][0]
        slots = torch.as_tensor(kernels.new_slots(layout, queries), device=device)
        if self._single:
            # Every token a row of its own, as long as what it may see.
            layout = replace(
                layout.take(np.repeat(np.arange(len(queries)), queries)),
                lengths=np.arange(len(pieces.tokens)) + first + 1,
            )
            queries = np.ones(len(pieces.tokens), dtype=np.int64)
        parts = _parts(layout, queries, cache, self._backend)
        attend = _Attend(self._decoder.scale, self._backend, caches, slots, parts)
        hidden = self._decoder.hidden(tokens, positions, attend)
        return hidden[torch.as_tensor(ends - 1, device=device)]

    def _replayed(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        writers: torch.Tensor,
        rows: Rows,
        caches: Caches,
    ) -> torch.Tensor:
        attend = _Attend(self._decoder.scale, self._backend, caches, slots, [rows], writers)
        return self._decoder.hidden(tokens, positions, attend)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._decoder.logits(hidden)


class _Attend:
    """Stores the new KV of a layer, then attends; what it needs is placed once for all layers.

    All is stored before anything is read, so a piece may read what another of the same pass
    computes (a prefix that both have, found as soon as it was granted).
    """

    def __init__(
        self,
        scale: float,
        backend: str,
        caches: Caches,
        slots: torch.Tensor,
        parts: list[Rows],
        writers: torch.Tensor | None = None,
    ) -> None:
        """With `writers`, what is stored at slot i is the KV of token `writers[i]`, not i."""
        self._scale, self._backend, self._caches = scale, backend, caches
        self._slots, self._parts, self._writers = slots, parts, writers

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        keys, values = self._caches[layer]
        kernels.store(k, v, keys, values, self._slots, writers=self._writers, backend=self._backend)
        out, at = torch.empty(q.shape, dtype=q.dtype, device=q.device), 0
        for rows in self._parts:
            single = rows.max_queries == 1
            to = at + rows.num_rows if single else len(q)
            part = (q[at:to], keys, values, rows)
            if single:
                kernels.decode(*part, self._scale, backend=self._backend, out=out[at:to])
            else:
                kernels.prefill(*part, None, self._scale, backend=self._backend, out=out[at:to])
            at = to
        return out


def _parts(layout: Layout, queries: IntArray, cache: torch.Tensor, backend: str) -> list[Rows]:
    """Place who decodes apart from who computes more: a GPU has a kernel for each.

    That of the CPU makes no difference.
    """
    longer = np.flatnonzero(queries > 1)
    decoding = int(longer[0]) if len(longer) else len(queries)
    if backend == "cpu" or decoding in (0, len(queries)):
        return [kernels.place(layout, cache, queries)]
    cut = np.arange(len(queries))
    return [
        kernels.place(layout.take(cut[:decoding]), cache, queries[:decoding]),
        kernels.place(layout.take(cut[decoding:]), cache, queries[decoding:]),
    ]
