"""Decode as a captured graph: one launch in place of hundreds, for batches of a few fixed sizes.

A CUDA graph replays the same kernels on the same addresses.  So the inputs of a decoding pass
(tokens, positions, slots, and where each row's KV lies) are copied into buffers of a fixed size,
and the pass over them is captured once for each size: a power of two of rows, and a longest length
of 1,024, 2,048 and so on.  Where a row's KV lies, and the slot of its token, are as many buffers as
the model has layer groups.

Rows that fill a batch up attend to one token, the last of the last row (what is before it may be
behind a window, and gone), and have nothing of their own to store: they store what the last row
does, where it does.

Capturing runs nothing, so it can be done before there is any KV; the kernels are compiled by a pass
over scratch memory of the same strides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

import kernels
from allocators.base import BlockTable, Geometry, IntArray, Layout, Strided
from allocators.placement import next_power_of_two
from kernels.compiling import nothing_compiled
from kernels.registry import MOST_PAGE_TOKENS
from kernels.rows import Rows, as_pages

#: the first of the lengths for which graphs are captured, and from each to the next
LEAST_LENGTH, LENGTH_FACTOR = 1024, 2

Caches = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each layer


@dataclass(frozen=True, slots=True)
class Where:
    """Where the rows of a captured pass lie in the layers of one layer group, and their new KV."""

    slots: torch.Tensor  # int64 [B]
    rows: Rows


#: computes tokens and positions over caches, rows by layer group; to each slot goes the KV of a
#: writer
Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Sequence[Where], Caches], torch.Tensor]


class Captured(Protocol):
    def replay(self) -> None: ...


class Capture(Protocol):
    """Records what `work` does, without doing it; returns that and the tensor it will fill.

    `warm_up` does the same on memory that may be written.
    """

    def __call__(
        self, work: Callable[[], torch.Tensor], warm_up: Callable[[], torch.Tensor]
    ) -> tuple[Captured, torch.Tensor]: ...


class CudaCapture:
    """Captures into CUDA graphs that share one pool of memory: only one runs at a time."""

    def __init__(self) -> None:
        self._pool = None

    def __call__(
        self, work: Callable[[], torch.Tensor], warm_up: Callable[[], torch.Tensor]
    ) -> tuple[Captured, torch.Tensor]:
        # Before a capture everything has to be compiled and every library set up: loading a kernel
        # is refused within one.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            warm_up()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Only what this thread does is captured: another one may be mapping memory.
        mode = {"pool": self._pool, "capture_error_mode": "thread_local"}
        with nothing_compiled(), torch.cuda.graph(graph, **mode):
            out = work()
        self._pool = graph.pool()
        return graph, out


@dataclass(slots=True)
class _Entry:
    """The buffers of one size, and what was captured over them."""

    tokens: torch.Tensor  # int64 [B]
    positions: torch.Tensor  # int64 [B]
    writers: torch.Tensor  # int64 [B]
    where: list[Where]  # by layer group
    graph: Captured
    out: torch.Tensor  # [B, hidden]


class DecodeGraphs:
    """Runs decoding passes by replaying what was captured for their size."""

    def __init__(
        self,
        work: Pass,
        caches: Caches,
        scratch: Caches,
        firsts: Sequence[int],
        geometry: Geometry,
        capture: Capture,
    ) -> None:
        """`scratch`: two pages, or some slots, of memory with the strides of `caches`.

        `firsts`: by layer group, the first of its layers.
        """
        self._work, self._caches, self._scratch = work, caches, scratch
        self._firsts, self._geometry, self._capture = firsts, geometry, capture
        self._entries: dict[tuple[int, int], _Entry] = {}

    def prepare(self, layouts: Sequence[Layout]) -> None:
        """Capture every size that may come; `layouts`, by layer group, are any of the kind."""
        largest = next_power_of_two(self._geometry.max_seqs)
        sizes = [1 << n for n in range(largest.bit_length())]
        longest = LEAST_LENGTH
        while True:
            for size in reversed(sizes):  # the largest first: the others fit into its memory
                self._entry(size, longest, layouts)
            if longest >= self._geometry.max_len:
                return
            longest *= LENGTH_FACTOR

    def run(self, layouts: Sequence[Layout], tokens: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, [S, hidden].

        layouts: by layer group, a row for each sequence, the new token counted, so the lengths are
        the same in each; tokens: int64 [S] on the CPU.
        """
        lengths = np.asarray(layouts[0].lengths, dtype=np.int64)
        count, size, longest = len(lengths), next_power_of_two(len(lengths)), LEAST_LENGTH
        while longest < lengths.max():
            longest *= LENGTH_FACTOR
        filled = np.minimum(np.arange(size), count - 1)
        own = np.arange(size) < count
        entry = self._entry(size, longest, layouts)
        seen = np.where(own, lengths[filled], 1)
        shared = (
            (entry.tokens, tokens[torch.as_tensor(filled)]),
            (entry.positions, torch.as_tensor(seen - 1)),
            (entry.writers, torch.as_tensor(filled)),
        )
        for held, new in shared:
            held.copy_(new)
        ahead = torch.as_tensor(np.where(own, 0, lengths[-1] - 1))
        for layout, layer, where in zip(layouts, self._firsts, entry.where, strict=True):
            self._fill(where, layout.take(filled), seen, ahead, self._caches[layer][0])
        entry.graph.replay()
        # The next replay, of any size, may write there: all share one pool of memory.
        return entry.out[:count].clone()

    def _fill(
        self, where: Where, layout: Layout, seen: IntArray, ahead: torch.Tensor, cache: torch.Tensor
    ) -> None:
        """Write to the buffers of one layer group: `seen` tokens a row, `ahead` in its memory."""
        slots = kernels.new_slots(layout, np.ones(len(seen), dtype=np.int64))
        rows = kernels.place(replace(layout, lengths=seen), cache)
        held = where.rows
        held.table[:, : rows.table.shape[1]].copy_(rows.table)
        held.offset.copy_(rows.offset + ahead.to(rows.offset.device))
        held.lengths.copy_(rows.lengths)
        where.slots.copy_(torch.as_tensor(slots))

    def _entry(self, size: int, longest: int, layouts: Sequence[Layout]) -> _Entry:
        found = self._entries.get((size, longest))
        if found is None:
            found = self._entries[size, longest] = self._make(size, longest, layouts)
        return found

    def _make(self, size: int, longest: int, layouts: Sequence[Layout]) -> _Entry:
        kinds = list(zip(layouts, self._firsts, strict=True))
        where = [self._where(size, longest, layout, layer) for layout, layer in kinds]
        scratch = [
            Where(here.slots, self._in_scratch(here.rows, layout, layer))
            for here, (layout, layer) in zip(where, kinds, strict=True)
        ]
        tokens, positions, writers = (torch.zeros_like(where[0].slots) for _ in range(3))

        def work() -> torch.Tensor:
            for here in where:
                here.rows.derived.clear()
            return self._work(tokens, positions, writers, where, self._caches)

        def warm_up() -> torch.Tensor:
            return self._work(tokens, positions, writers, scratch, self._scratch)

        graph, out = self._capture(work, warm_up)
        return _Entry(tokens, positions, writers, where, graph=graph, out=out)

    def _where(self, size: int, longest: int, layout: Layout, layer: int) -> Where:
        """Make buffers for rows of one layer group, `layer` the first of it."""
        cache = self._caches[layer][0]
        rows = kernels.place(_first_token(layout, size), cache)
        # As many columns as the longest row may need; a row in one long page needs no second.
        pages = as_pages(cache, rows.page_tokens if rows.block_tokens else None).shape[0]
        columns = 1 if pages == 1 else min(-(-longest // rows.page_tokens) + 1, pages)
        rows = replace(
            rows,
            table=rows.table.new_zeros((size, columns)),
            max_length=min(longest, self._geometry.max_len),
            # It may hold now and not later, unless nothing can run over the end of a page.
            contiguous=pages == 1,
            host=None,
            derived={},
        )
        return Where(torch.zeros_like(rows.offset), rows)

    def _in_scratch(self, rows: Rows, layout: Layout, layer: int) -> Rows:
        """Return captured rows as they are over scratch memory: one long page is shorter there."""
        scratch = kernels.place(_first_token(layout, 1), self._scratch[layer][0])
        return replace(rows, page_tokens=scratch.page_tokens, derived={})


def _first_token(layout: Layout, size: int) -> Layout:
    """Return rows that are all the first token of the first page: what scratch memory has too."""
    zeros, ones = np.zeros(size, dtype=np.int64), np.ones(size, dtype=np.int64)
    if isinstance(layout, BlockTable):
        return BlockTable(layout.page_tokens, zeros[:, None], ones)
    return Strided(zeros, ones)


def scratch_like(one: torch.Tensor, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values for two pages and `slots` at the least, strided as the cache `one` is.

    Numbers are 0.
    """
    flat = as_pages(one, None)
    size, strides = (1 + -(-slots // one.shape[1]), *one.shape[1:]), one.stride()
    if flat.shape[0] == 1:
        # Two pages of a cache without gaps may be two whole ranges: so many slots do.
        page = one.shape[1] if one.dim() == 4 and one.shape[1] <= MOST_PAGE_TOKENS else 1
        size, strides = (max(slots, 2 * page), *one.shape[-2:]), flat.stride()[1:]
    keys, values = (
        torch.empty_strided(size, strides, dtype=one.dtype, device=one.device).zero_()
        for _ in range(2)
    )
    return keys, values
