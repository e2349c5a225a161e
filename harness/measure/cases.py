"""Batches to attend over: where their rows lie, and caches whose other slots hold NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from allocators.base import BlockTable, IntArray, Strided
from kernels import new_slots, prefill, store

#: numbers between two pages of a padded cache
GAP = 48
#: largest error that rounding explains, for outputs of about 1
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@dataclass
class Case:
    """Queries and a cache; `queries` are the new tokens of each row."""

    q: torch.Tensor  # [sum of queries, heads, head_dim]
    keys: torch.Tensor
    values: torch.Tensor
    layout: BlockTable | Strided
    queries: IntArray
    scale: float

    def expected(self) -> torch.Tensor:
        """Return the answer in float64, from the numbers as the cache holds them."""
        caches = (self.keys.double(), self.values.double())
        return prefill(self.q.double(), *caches, self.layout, self.queries, self.scale)

    def error(self, out: torch.Tensor) -> float:
        """Return the largest error of `out`; infinite where it holds NaN."""
        return (out.double() - self.expected()).abs().nan_to_num(nan=torch.inf).max().item()


def shuffled(lengths: IntArray, page: int, pages: int, rng: np.random.Generator) -> BlockTable:
    """Give each row its pages out of `pages` in an order without any; -1 behind a row's end."""
    counts = -(-lengths // page)
    order = rng.permutation(pages)
    table = np.full((len(lengths), int(counts.max())), -1, dtype=np.int64)
    for row, (n, first) in enumerate(zip(counts, np.cumsum(counts) - counts, strict=True)):
        table[row, :n] = order[first : first + n]
    return BlockTable(page, table, lengths)


def side_by_side(lengths: IntArray, gap: int = 0) -> Strided:
    """Give each row an extent of its own, `gap` slots apart."""
    return Strided(np.cumsum(lengths + gap) - lengths, lengths)


def make_case(
    lengths: IntArray,
    queries: IntArray,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    *,
    page: int | None = None,
    padded: int | None = None,
    heads: tuple[int, int] = (8, 2),
    seed: int = 0,
) -> Case:
    """Return a case of `heads` (query, KV); `page` None: contiguous rows, in pages of `padded`
    tokens with a gap behind each if that is given (as padded page-groups are)."""
    rng = np.random.default_rng(seed)
    numbers = torch.Generator().manual_seed(seed)
    if page is not None:
        pages = int((-(-lengths // page)).sum()) + 3
        layout: BlockTable | Strided = shuffled(lengths, page, pages, rng)
        shape: tuple[int, ...] = (pages, page)
    else:
        layout = side_by_side(lengths, gap=5)
        shape = (int(lengths.sum()) + 5 * len(lengths) + 1,)
    token = heads[1] * head_dim
    if padded:
        pages, step = -(-shape[0] // padded), padded * token + GAP
        whole = torch.full((2, pages * step), float("nan"), dtype=dtype, device=device)
        strides = (step, token, head_dim, 1)
        keys, values = (w.as_strided((pages, padded, heads[1], head_dim), strides) for w in whole)
    else:
        keys, values = torch.full(
            (2, *shape, heads[1], head_dim), float("nan"), dtype=dtype, device=device
        )
    live = new_slots(layout, lengths)
    new = torch.randn((2, len(live), heads[1], head_dim), generator=numbers).to(device, dtype)
    store(new[0], new[1], keys, values, live)
    q = torch.randn((int(queries.sum()), heads[0], head_dim), generator=numbers).to(device, dtype)
    return Case(q, keys, values, layout, queries, head_dim**-0.5)
