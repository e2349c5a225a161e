"""Batches whose live slots hold numbers and whose every other slot holds NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from allocators.base import BlockTable, Strided
from kernels import new_slots, prefill, store


@dataclass
class Case:
    q: torch.Tensor
    k_cache: torch.Tensor
    v_cache: torch.Tensor
    layout: BlockTable | Strided
    queries: np.ndarray
    scale: float
    window: int | None = None
    sinks: torch.Tensor | None = None

    @property
    def args(self):
        return self.q, self.k_cache, self.v_cache, self.layout

    def expected(self):
        """The answer in float64, from the numbers as the cache holds them."""
        caches = (self.k_cache.double(), self.v_cache.double())
        q, more = self.q.double(), {"window": self.window, "sinks": self.sinks}
        return prefill(q, *caches, self.layout, self.queries, self.scale, **more)

    def look_through(self, window):
        """Set a window, and put NaN into every slot that no query sees through it."""
        self.window = window
        slots, first = new_slots(self.layout, self.layout.lengths), 0
        token = self.k_cache.shape[-2:]
        for length, new in zip(self.layout.lengths, self.queries, strict=True):
            behind = slots[first : first + max(0, length - new - window + 1)]
            nothing = self.k_cache.new_full((len(behind), *token), float("nan"))
            store(nothing, nothing, self.k_cache, self.v_cache, behind)
            first += length
        return self

    def with_sinks(self):
        """Give the heads sinks, in the numbers' type: some that take nearly all, and nearly none.

        Scores are about 1 in size, so the first two heads have the sinks that matter.
        """
        levels = torch.linspace(3.0, -2.0, self.q.shape[1])
        levels[1:2] = 12.0
        self.sinks = levels.to(self.q)
        return self

    def poisoned_out(self):
        return torch.full_like(self.q, float("nan"))


def paged_layout(lengths, page, rng, spare=3):
    """A shuffled block table; entries behind a row's end are -1.  Returns it and the pages."""
    counts = -(-lengths // page)
    pages = int(counts.sum()) + spare
    order = rng.permutation(pages)
    table = np.full((len(lengths), int(counts.max())), -1, dtype=np.int64)
    for row, (n, first) in enumerate(zip(counts, np.cumsum(counts) - counts, strict=True)):
        table[row, :n] = order[first : first + n]
    return BlockTable(page, table, lengths), pages


def strided_layout(lengths, rng, gap=5):
    """Extents in shuffled order with gaps between.  Returns it and the slots."""
    base, at = np.zeros_like(lengths), int(rng.integers(0, gap))
    for row in rng.permutation(len(lengths)):
        base[row] = at
        at += int(lengths[row]) + int(rng.integers(0, gap))
    return Strided(base, lengths), at + 1


def make(
    lengths,
    queries=None,
    *,
    page=None,
    heads=(4, 2),
    dim=64,
    dtype=torch.float32,
    seed=0,
    padded=None,
    device="cpu",
):
    """A case; `page=None` is contiguous, in pages of `padded` tokens with gaps between if given."""
    lengths = np.asarray(lengths, dtype=np.int64)
    queries = np.ones_like(lengths) if queries is None else np.asarray(queries)
    rng = np.random.default_rng(seed)
    numbers = torch.Generator().manual_seed(seed)
    query_heads, kv_heads = heads
    if page is not None:
        layout, pages = paged_layout(lengths, page, rng)
        shape = (pages, page, kv_heads, dim)
    else:
        layout, slots = strided_layout(lengths, rng)
        shape = (slots, kv_heads, dim)
    if padded:
        pages, token = -(-shape[0] // padded), kv_heads * dim
        step = padded * token + 48
        whole = torch.full((2, pages * step), float("nan"), dtype=dtype, device=device)
        strides = (step, token, dim, 1)
        k, v = (w.as_strided((pages, padded, kv_heads, dim), strides) for w in whole)
    else:
        k, v = torch.full((2, *shape), float("nan"), dtype=dtype, device=device)
    live = new_slots(layout, lengths)
    new_k, new_v = (
        torch.randn((len(live), kv_heads, dim), generator=numbers).to(device, dtype)
        for _ in range(2)
    )
    store(new_k, new_v, k, v, live)
    q = torch.randn((int(queries.sum()), query_heads, dim), generator=numbers).to(device, dtype)
    return Case(q, k, v, layout, queries, dim**-0.5)


#: largest error that rounding explains, for outputs of about 1
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def error_of(found, case):
    """The largest difference from float64 at any position; infinite where there is NaN."""
    return (found.double() - case.expected()).abs().nan_to_num(nan=torch.inf).max().item()


def close(found, case):
    """Assert agreement with float64, position by position."""
    error = error_of(found, case)
    assert error < TOLERANCE[case.q.dtype], f"off by {error} in {case.q.dtype}"
