"""Decode as a captured graph: one launch in place of hundreds, for batches of a few fixed sizes.

A CUDA graph replays the same kernels on the same addresses.  So the inputs of a decoding pass
(tokens, positions, slots, and where each row's KV lies) are copied into buffers of a fixed size,
and the pass over them is captured once for each size: a power of two of rows, and a longest length
of 1,024, 2,048 and so on.  Rows that fill a batch up attend to one token, the first of the last
row, and have nothing of their own to store: they store what the last row does, where it does.

Capturing runs nothing, so it can be done before there is any KV; the kernels are compiled by a pass
over scratch memory of the same strides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

import kernels
from allocators.base import BlockTable, Geometry, Layout, Strided
from allocators.placement import next_power_of_two
from kernels.compiling import nothing_compiled
from kernels.registry import MOST_PAGE_TOKENS
from kernels.rows import Rows, as_pages

#: the first of the lengths for which graphs are captured, and from each to the next
LEAST_LENGTH, LENGTH_FACTOR = 1024, 2

Caches = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each layer
#: computes tokens, positions and rows of a batch over caches; to each slot goes the KV of a writer
Pass = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Rows, Caches], torch.Tensor
]


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
    slots: torch.Tensor  # int64 [B]
    writers: torch.Tensor  # int64 [B]
    rows: Rows
    graph: Captured
    out: torch.Tensor  # [B, hidden]


class DecodeGraphs:
    """Runs decoding passes by replaying what was captured for their size."""

    def __init__(
        self, work: Pass, caches: Caches, scratch: Caches, geometry: Geometry, capture: Capture
    ) -> None:
        """`scratch`: two pages, or some slots, of memory with the strides of `caches`."""
        self._work, self._caches, self._scratch = work, caches, scratch
        self._geometry, self._capture = geometry, capture
        self._entries: dict[tuple[int, int], _Entry] = {}

    def prepare(self, layout: Layout) -> None:
        """Capture every size that may come; `layout` is any of the kind that will."""
        largest = next_power_of_two(self._geometry.max_seqs)
        sizes = [1 << n for n in range(largest.bit_length())]
        longest = LEAST_LENGTH
        while True:
            for size in reversed(sizes):  # the largest first: the others fit into its memory
                self._entry(size, longest, layout)
            if longest >= self._geometry.max_len:
                return
            longest *= LENGTH_FACTOR

    def run(self, layout: Layout, tokens: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, [S, hidden].

        layout: a row for each sequence, the new token counted; tokens: int64 [S] on the CPU.
        """
        count = len(layout.lengths)
        size, longest = next_power_of_two(count), LEAST_LENGTH
        while longest < layout.lengths.max():
            longest *= LENGTH_FACTOR
        filled = np.minimum(np.arange(size), count - 1)
        layout = layout.take(filled)
        slots = kernels.new_slots(layout, np.ones(size, dtype=np.int64))
        layout = replace(layout, lengths=np.where(np.arange(size) < count, layout.lengths, 1))
        entry = self._entry(size, longest, layout)
        rows = kernels.place(layout, self._caches[0][0])
        width = rows.table.shape[1]
        for held, new in (
            (entry.tokens, tokens[torch.as_tensor(filled)]),
            (entry.positions, torch.as_tensor(np.asarray(layout.lengths, dtype=np.int64) - 1)),
            (entry.slots, torch.as_tensor(slots)),
            (entry.writers, torch.as_tensor(filled)),
            (entry.rows.table[:, :width], rows.table),
            (entry.rows.offset, rows.offset),
            (entry.rows.lengths, rows.lengths),
        ):
            held.copy_(new)
        entry.graph.replay()
        # The next replay, of any size, may write there: all share one pool of memory.
        return entry.out[:count].clone()

    def _entry(self, size: int, longest: int, layout: Layout) -> _Entry:
        found = self._entries.get((size, longest))
        if found is None:
            found = self._entries[size, longest] = self._make(size, longest, layout)
        return found

    def _make(self, size: int, longest: int, layout: Layout) -> _Entry:
        cache = self._caches[0][0]
        # All rows are the first token of the first page: what scratch memory has, too.
        zeros, ones = np.zeros(size, dtype=np.int64), np.ones(size, dtype=np.int64)
        if isinstance(layout, BlockTable):
            layout = BlockTable(layout.page_tokens, zeros[:, None], ones)
        else:
            layout = Strided(zeros, ones)
        rows = kernels.place(layout, cache)
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
        inputs = tokens, positions, slots, writers = [
            torch.zeros_like(rows.offset) for _ in range(4)
        ]

        # One long page is shorter there.
        page = kernels.place(layout, self._scratch[0][0]).page_tokens
        scratch_rows = replace(rows, page_tokens=page, derived={})

        def work() -> torch.Tensor:
            rows.derived.clear()
            return self._work(*inputs, rows, self._caches)

        def warm_up() -> torch.Tensor:
            return self._work(*inputs, scratch_rows, self._scratch)

        graph, out = self._capture(work, warm_up)
        return _Entry(tokens, positions, slots, writers, rows=rows, graph=graph, out=out)


def scratch_like(caches: Caches, slots: int) -> Caches:
    """Return memory for two pages and `slots` at the least, strided as `caches` are.

    All layers share it.  Numbers are 0.
    """
    one = caches[0][0]
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
    return [(keys, values)] * len(caches)
