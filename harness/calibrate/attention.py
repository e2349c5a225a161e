"""Times of attention and of writing KV, one layer of a pass through all of them.

A step goes through the caches of all layers with rows that it has placed once; so does a sample
here, and its time is divided by the layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from allocators.base import BlockTable, IntArray, Strided
from harness.calibrate.bench import Bench, Point
from harness.calibrate.grids import Grid, up_to
from harness.cost.calibration import LAYOUTS
from harness.cost.shapes import ModelShape
from kernels import decode, place, prefill, store
from kernels.memory import Backing

Table = dict[str, Any]


class KernelBench:
    """Adds points of `decode`, `prefill` and `store` to a bench; `memory` is a paged pool."""

    def __init__(
        self, bench: Bench, grid: Grid, model: ModelShape, memory: Backing, backend: str
    ) -> None:
        self._bench, self._grid, self._model, self._backend = bench, grid, model, backend
        geometry = memory.geometry
        self._page, self._slots = geometry.page_tokens, geometry.capacity_tokens
        layers = range(model.layers)
        paged = [(memory.keys(i), memory.values(i)) for i in layers]
        flat = [(k.flatten(0, 1), v.flatten(0, 1)) for k, v in paged]
        self._caches = {"paged": paged, "contiguous": flat}
        most = max(grid.new[-1], grid.rows[-1], grid.tokens[-1])
        generator = torch.Generator().manual_seed(0)

        def numbers(heads: int) -> torch.Tensor:
            shape = (most, heads, model.head_dim)
            return torch.randn(shape, generator=generator).to(memory.device, memory.dtype)

        self._q, self._kv = numbers(model.heads), numbers(model.kv_heads)
        for k, v in paged:
            k.normal_()
            v.normal_()
        self._order = np.random.default_rng(0).permutation(self._slots // self._page)

    def decode(self) -> Table:
        """Attention of `batch` rows of one new token and `context_tokens` in all."""
        return {name: [self._decode(name, b) for b in self._grid.rows] for name in LAYOUTS}

    def prefill(self) -> Table:
        """Attention of one prompt piece of `new_tokens` behind `past_tokens`."""
        pasts = [n for n in self._grid.past if n < self._model.max_context]
        found = {name: [self._prefill(name, past) for past in pasts] for name in LAYOUTS}
        return {name: [row for row in rows if row["new_tokens"]] for name, rows in found.items()}

    def store(self) -> Table:
        """Writing the keys and values of `tokens` new tokens."""
        tokens = [n for n in self._grid.tokens if n <= self._slots]
        return {"tokens": tokens, "seconds": [self._store(n) for n in tokens]}

    # -- points ----------------------------------------------------------------------------------
    def _decode(self, name: str, batch: int) -> Table:
        contexts = [c for c in self._contexts(self._grid.context) if self._fits(batch, c)]
        # At least one context, however small the memory: a row of the table is never empty.
        contexts = contexts or [max(1, self._slots // batch // self._page * self._page)]
        points = [self._attend(name, decode, np.full(batch, c), None) for c in contexts]
        return {"batch": batch, "context_tokens": contexts, "seconds": points}

    def _prefill(self, name: str, past: int) -> Table:
        longest = self._model.max_context
        new = [n for n in up_to(self._grid.new, longest) if self._fits(1, past + n)]
        points = [self._attend(name, prefill, np.array([past + n]), np.array([n])) for n in new]
        return {"past_tokens": past, "new_tokens": new, "seconds": points}

    def _attend(self, name: str, kernel: Any, lengths: IntArray, queries: IntArray | None) -> Point:
        caches, scale = self._caches[name], self._model.head_dim**-0.5
        rows = place(self._layout(name, lengths), caches[0][0], queries)
        q = self._q[: len(lengths) if queries is None else int(queries.sum())]
        more = () if queries is None else (None,)

        def work() -> None:
            for k, v in caches:
                kernel(q, k, v, rows, *more, scale, backend=self._backend)

        return self._bench.call(work, len(caches))

    def _store(self, tokens: int) -> Point:
        caches, new = self._caches["paged"], self._kv[:tokens]
        at = self._order[np.arange(tokens) // self._page % len(self._order)] * self._page
        slots = torch.as_tensor(at + np.arange(tokens) % self._page, device=new.device)

        def work() -> None:
            for k, v in caches:
                store(new, new, k, v, slots, backend=self._backend)

        return self._bench.call(work, len(caches))

    # -- layouts ---------------------------------------------------------------------------------
    def _layout(self, name: str, lengths: IntArray) -> BlockTable | Strided:
        """Lay rows out side by side; pages in an order without any, as a pool in use has them."""
        pages = -(-lengths // self._page)
        first = np.cumsum(pages) - pages
        if name == "contiguous":
            return Strided(first * self._page, lengths)
        table = np.full((len(lengths), int(pages.max())), -1, dtype=np.int64)
        for row, (start, n) in enumerate(zip(first.tolist(), pages.tolist(), strict=True)):
            table[row, :n] = self._order[start : start + n]
        return BlockTable(self._page, table, lengths)

    def _contexts(self, amounts: tuple[int, ...]) -> list[int]:
        return up_to(amounts, self._model.max_context)

    def _fits(self, rows: int, length: int) -> bool:
        return rows * -(-length // self._page) * self._page <= self._slots
