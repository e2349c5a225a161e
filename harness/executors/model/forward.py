"""One pass of the decoder over pieces of sequences whose KV lies where the allocator says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

import kernels
from allocators.base import Allocator, BlockTable, IntArray, Layout, Strided
from harness.executors.model.attend import AttendInMemory, Placed, layers_in_memory, parts_of
from harness.executors.model.graphs import Caches, Capture, DecodeGraphs, Where, scratch_like
from kernels.memory import Backing
from kernels.memory.layered import LayeredBacking
from kernels.memory.layered_pool import LayeredPool
from kernels.rows import as_pages

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
        groups = allocator.geometry.layer_groups
        layers = layers_in_memory(decoder.windows, groups)
        self._caches = [(memory.keys(i), memory.values(i)) for i in layers]
        #: of each layer its layer group, of each layer group the first of its layers
        self._group_of = [memory.places[i][0] if groups else 0 for i in layers]
        self._first_of = [self._group_of.index(i) for i in range(len(groups) or 1)]
        made = [scratch_like(self._caches[layer][0], WARM_TOKENS) for layer in self._first_of]
        self._scratch = [made[group] for group in self._group_of]  # all layers of one share it
        self._graphs = None
        if capture is not None:
            kinds = (self._first_of, allocator.geometry)
            self._graphs = DecodeGraphs(
                self._replayed, self._caches, self._scratch, *kinds, capture
            )

    def run(self, pieces: Pieces) -> torch.Tensor:
        """Compute the pieces and store their KV; return the last hidden state of each, [S, H]."""
        layouts = self._layouts(pieces)
        if self._graphs is not None and len(pieces.tokens) == len(pieces.rows):
            return self._graphs.run(layouts, torch.as_tensor(pieces.tokens))
        return self._pass(self._caches, layouts, pieces)

    def _layouts(self, pieces: Pieces) -> list[Layout]:
        """Return where the pieces' sequences lie, in each layer group."""
        # A prompt may be computed before the private tokens behind it, which a layout counts.
        allocator, memory, lengths = self._allocator, self._memory, pieces.stops
        if not isinstance(memory, LayeredBacking):
            return [replace(allocator.layout(pieces.rows), lengths=lengths)]
        layouts = [allocator.layer_layout(pieces.rows, i) for i in range(len(self._first_of))]
        return [
            memory.addressed(replace(layout, lengths=lengths), i)
            for i, layout in enumerate(layouts)
        ]

    def warm_up(self) -> None:
        """Compile, load and capture what a run needs: no step is timed cold."""
        for layouts in self._warm_layouts():
            n = int(layouts[0].lengths[0])
            # Many new tokens, two, one: a prefill may have a kernel for few.
            for start in sorted({0, max(0, n - 2), n - 1}):
                tokens = np.zeros(n - start, dtype=np.int64)
                pieces = Pieces(np.zeros(1, int), np.array([start]), layouts[0].lengths, tokens)
                self.logits(self._pass(self._scratch, layouts, pieces))
        # What grants copy within memory is moved by a kernel of its own.
        nothing = np.array([[0, 1, 1]])
        kernels.copy_slots(self._scratch[0], nothing, backend=self._memory.mover)
        if self._graphs is not None:
            self._graphs.prepare(layouts)

    def _warm_layouts(self) -> Iterator[list[Layout]]:
        """Yield a row of scratch memory, by layer group, for each way in which rows may lie."""
        n = min(WARM_TOKENS, self._allocator.geometry.max_len)
        if self._allocator.block_tables or isinstance(self._memory, LayeredPool):
            # The pages of scratch memory over and over: what lies in them plays no part.
            yield [
                BlockTable(page, np.arange(-(-n // page))[None] % 2, np.array([n]))
                for page in (self._caches[layer][0].shape[1] for layer in self._first_of)
            ]
            return
        shapes = [as_pages(self._scratch[i][0], None).shape[:2] for i in self._first_of]
        within = min(n, *(page for _, page in shapes))
        yield [Strided(np.zeros(1, int), np.array([within])) for _ in shapes]
        over = [pages > 1 and page < self._allocator.geometry.max_len for pages, page in shapes]
        if any(over):
            # A kernel of its own reads rows that run over the end of a page.
            starts = [page - 1 if ends else 0 for (_, page), ends in zip(shapes, over, strict=True)]
            room = (
                (pages - 1) * page if ends else page
                for (pages, page), ends in zip(shapes, over, strict=True)
            )
            length = np.array([min(n, *room)])
            yield [Strided(np.array([start]), length) for start in starts]

    def close(self) -> None:
        """Let go of the memory's views."""
        self._caches, self._graphs = [], None

    def _pass(self, caches: Caches, layouts: list[Layout], pieces: Pieces) -> torch.Tensor:
        queries = pieces.stops - pieces.starts
        ends = np.cumsum(queries)
        first = np.repeat(pieces.starts - (ends - queries), queries)
        device = self._memory.device
        tokens = torch.as_tensor(pieces.tokens, device=device)
        at = np.arange(len(pieces.tokens)) + first
        placed = [
            self._placed(layout, queries, at, caches[layer][0])
            for layout, layer in zip(layouts, self._first_of, strict=True)
        ]
        attend = AttendInMemory(self._decoder, self._backend, caches, placed, self._group_of)
        hidden = self._decoder.hidden(tokens, torch.as_tensor(at, device=device), attend)
        return hidden[torch.as_tensor(ends - 1, device=device)]

    def _placed(
        self, layout: Layout, queries: IntArray, positions: IntArray, cache: torch.Tensor
    ) -> Placed:
        slots = torch.as_tensor(kernels.new_slots(layout, queries), device=cache.device)
        if self._single:
            # Every token a row of its own, as long as what it may see.
            of_token = np.repeat(np.arange(len(queries)), queries)
            layout = replace(layout.take(of_token), lengths=positions + 1)
            queries = np.ones(len(positions), dtype=np.int64)
        return Placed(slots, parts_of(layout, queries, cache, self._backend))

    def _replayed(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        writers: torch.Tensor,
        where: Sequence[Where],
        caches: Caches,
    ) -> torch.Tensor:
        placed = [Placed(here.slots, [here.rows], writers) for here in where]
        attend = AttendInMemory(self._decoder, self._backend, caches, placed, self._group_of)
        return self._decoder.hidden(tokens, positions, attend, captured=True)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._decoder.logits(hidden)
