"""Decode as a captured graph: one launch in place of hundreds, for batches of a few fixed sizes.

A CUDA graph replays the same kernels on the same addresses.  So the inputs of a decoding pass
(tokens, positions, slots, and where each row's KV lies) are copied into buffers of a fixed size,
one set for each power of two of rows and of longest length, and the pass over them is captured
once.  Rows that fill a batch up repeat its last row: they write the same numbers to the same slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

import kernels
from kernels.rows import Layout, Rows, as_pages

#: the shortest length for which a graph is captured; below it, nothing is won by another one
LEAST_LENGTH = 256

Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Rows], torch.Tensor]


class Captured(Protocol):
    def replay(self) -> None: ...


class Capture(Protocol):
    """Records what `work` does to buffers; returns it with the tensor that it gave."""

    def __call__(self, work: Callable[[], torch.Tensor]) -> tuple[Captured, torch.Tensor]: ...


class CudaCapture:
    """Captures into CUDA graphs that share one pool of memory: only one runs at a time."""

    def __init__(self) -> None:
        self._pool = None

    def __call__(self, work: Callable[[], torch.Tensor]) -> tuple[Captured, torch.Tensor]:
        # Before a capture everything has to be compiled and every library set up.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = work()
        self._pool = graph.pool()
        return graph, out


@dataclass(slots=True)
class _Entry:
    """The buffers of one size, and what was captured over them."""

    tokens: torch.Tensor  # int64 [B]
    positions: torch.Tensor  # int64 [B]
    slots: torch.Tensor  # int64 [B]
    rows: Rows
    graph: Captured
    out: torch.Tensor  # [B, hidden]


class DecodeGraphs:
    """Runs decoding passes by replaying what was captured for their size."""

    def __init__(self, work: Pass, cache: torch.Tensor, max_len: int, capture: Capture) -> None:
        """`work` computes tokens, positions, slots and rows of a batch; `cache` is any layer's."""
        self._work, self._cache, self._capture = work, cache, capture
        self._max_len = max_len
        self._entries: dict[tuple[int, int], _Entry] = {}

    def run(self, layout: Layout, tokens: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, [S, hidden], valid until the next run of this size.

        layout: one row a sequence, the new token counted; tokens: int64 [S] on the CPU.
        """
        count = len(layout.lengths)
        size = _power_of_two(count)
        longest = _power_of_two(max(LEAST_LENGTH, int(layout.lengths.max())))
        filled = np.minimum(np.arange(size), count - 1)
        layout = take(layout, filled)
        rows = kernels.place(layout, self._cache)
        ones = np.ones(size, dtype=np.int64)
        slots = torch.as_tensor(kernels.new_slots(layout, ones))
        positions = torch.as_tensor(np.asarray(layout.lengths, dtype=np.int64) - 1)
        tokens = tokens[torch.as_tensor(filled)]
        entry = self._entries.get((size, longest))
        if entry is None:
            entry = self._make(rows, tokens, positions, slots, longest)
            self._entries[size, longest] = entry
        else:
            self._fill(entry, rows, tokens, positions, slots)
        entry.graph.replay()
        return entry.out[:count]

    def _make(
        self,
        rows: Rows,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        longest: int,
    ) -> _Entry:
        device = self._cache.device
        # As many columns as the longest row may need; a row in one long page needs no second.
        pages = as_pages(self._cache, rows.page_tokens).shape[0]
        columns = 1 if pages == 1 else min(-(-longest // rows.page_tokens) + 1, pages)
        table = rows.table.new_zeros((rows.num_rows, columns))
        table[:, : rows.table.shape[1]] = rows.table
        static = replace(
            rows,
            table=table,
            max_length=min(longest, self._max_len),
            # It may hold now and not later, unless nothing can run over the end of a page.
            contiguous=pages == 1,
            derived={},
        )
        inputs = [t.to(device).clone() for t in (tokens, positions, slots)]

        def work() -> torch.Tensor:
            static.derived.clear()
            return self._work(*inputs, static)

        graph, out = self._capture(work)
        return _Entry(*inputs, rows=static, graph=graph, out=out)

    @staticmethod
    def _fill(
        entry: _Entry,
        rows: Rows,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        for held, new in (
            (entry.tokens, tokens),
            (entry.positions, positions),
            (entry.slots, slots),
            (entry.rows.table[:, : rows.table.shape[1]], rows.table),
            (entry.rows.offset, rows.offset),
            (entry.rows.lengths, rows.lengths),
        ):
            held.copy_(new)


def take(layout: Layout, at: np.ndarray) -> Layout:
    """Return these rows of a layout."""
    name = "table" if hasattr(layout, "table") else "base"
    part = {"lengths": np.asarray(layout.lengths)[at], name: np.asarray(getattr(layout, name))[at]}
    return replace(layout, **part)


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()
