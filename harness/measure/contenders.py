"""Who is measured against whom: back ends of attention over rows that lie in memory in many ways.

    memory   layout       where a row lies
    pool     contiguous   side by side with the others: what all are compared with
    pool     paged        in pages of so many tokens, in no order
    pool     padded       in one piece of pages that end in a gap, as virtual page-groups may
    mapped   virtual      in one piece of addresses; pages mapped one by one, in no order

A virtual row is in whole pages if a page holds a whole number of tokens, else its pages are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from allocators.base import BlockTable, Geometry, Grant, IntArray, Strided
from allocators.virtual import PAGE_BYTES, Virtual
from harness.measure.layouts import attention_call, fits, shuffled, side_by_side
from harness.measure.serving import SMALLEST_PAGE
from kernels import decode, prefill, probe
from kernels.memory import backing_for
from kernels.rows import as_pages

PAGES = (1, 16, 32, 64, 128, 256)
#: OPT-13B's page of 2 MiB holds 204.8 tokens of a layer's keys, so 204 and a gap
PADDED_TOKENS, GAP_TOKENS = 204, 0.8
#: numbers to which the start of a padded page is aligned
ALIGNED = 64

Caches = tuple[torch.Tensor, torch.Tensor]
#: query heads, KV heads, head size
Heads = tuple[int, int, int]


@dataclass(frozen=True)
class AttentionBatch:
    """Rows of `lengths` tokens, the last `new` [S] of which ask; all ones: a decode.

    A query sees the last `window` tokens up to its own (None: all), and with `sinks` each head has
    one more logit in its softmax.
    """

    lengths: tuple[int, ...]
    new: tuple[int, ...]
    window: int | None = None
    sinks: bool = False

    @classmethod
    def of(
        cls,
        rows: int,
        past: int,
        new: int = 0,
        ragged: bool = False,
        window: int | None = None,
        sinks: bool = False,
    ) -> AttentionBatch:
        """Return `rows` of `past` tokens and `new` more; new 0 is a decode of past tokens.

        Ragged rows have from 1/8 to 15/8 of it, past for a decode and new for a prefill.
        """
        asked = np.full(rows, new or past)
        if ragged:
            low = max(1, int(asked[0]) // 8)
            asked = np.random.default_rng(rows).integers(low, 2 * int(asked[0]) - low, rows)
        lengths = asked + past if new else asked
        queries = asked.tolist() if new else [1] * rows
        return cls(tuple(lengths.tolist()), tuple(queries), window, sinks)

    @property
    def mode(self) -> str:
        return "prefill" if max(self.new) > 1 else "decode"

    @property
    def even(self) -> bool:
        return len(set(self.lengths)) == 1

    @property
    def seen(self) -> int:
        """Pairs of a query and a key that it sees: those before it, within its window, its own."""
        lengths, n = np.array(self.lengths), np.array(self.new)
        widest = int(lengths.max()) if self.window is None else self.window
        # So many queries of a row do not fill their window yet.
        filling = np.clip(widest - (lengths - n), 0, n)
        early = filling * (lengths - n) + filling * (filling + 1) // 2
        return int((early + (n - filling) * widest).sum())

    def numbers(self, heads: Heads) -> int:
        """Return the numbers that a call must read or write: KV, queries, output."""
        query_heads, kv_heads, dim = heads
        read = np.array(self.lengths)
        if self.window is not None:
            read = np.minimum(read, np.array(self.new) + self.window - 1)
        return 2 * dim * (int(read.sum()) * kv_heads + sum(self.new) * query_heads)


@dataclass(frozen=True)
class Contender:
    """A back end, and where its rows lie; `page_tokens` is None for contiguous rows."""

    backend: str
    memory: str
    layout: str
    page_tokens: int | None

    @property
    def baseline(self) -> Contender:
        """The same back end over contiguous rows of a pool."""
        return Contender(self.backend, "pool", "contiguous", None)


class Arena:
    """KV of one layer, twice: a pool, and as much memory that the driver maps page by page."""

    def __init__(
        self, heads: Heads, dtype: torch.dtype, device: torch.device, kv_bytes: int, held: ExitStack
    ) -> None:
        """Take `kv_bytes` for each; `held` gives back what is mapped.

        `refused` says why nothing is mapped, if so: `Unsupported`, `OutOfMemory`.
        """
        self.heads, self.device, self.dtype_bytes = heads, device, dtype.itemsize
        _, kv_heads, dim = heads
        size = (kv_bytes // (2 * kv_heads * dim * dtype.itemsize), kv_heads, dim)
        pool = [torch.empty(size, dtype=dtype, device=device).normal_() for _ in range(2)]
        self._pool: Caches = (pool[0], pool[1])
        self._mapped: Caches | None = None
        self.refused = ""
        try:
            self._mapped = self._map(kv_bytes, dtype, held)
        except Exception as error:  # a driver may refuse in any way; the pool is still measured
            self.refused = " ".join(f"{type(error).__name__}: {error}".split())

    def _map(self, kv_bytes: int, dtype: torch.dtype, held: ExitStack) -> Caches:
        _, kv_heads, dim = self.heads
        name, token_bytes = SMALLEST_PAGE[self.device.type], kv_heads * dim * dtype.itemsize
        tokens = kv_bytes // (2 * token_bytes)
        groups = tokens * token_bytes // PAGE_BYTES[name]
        # One range for all rows.
        room = Geometry(
            capacity_tokens=tokens, max_seqs=1, max_len=groups * (PAGE_BYTES[name] // token_bytes),
            layers=1, kv_heads=kv_heads, head_dim=dim, dtype_bytes=dtype.itemsize,
        )  # fmt: skip
        allocator = Virtual(room, page_size=name)
        memory = backing_for(
            allocator, dtype=dtype, device=self.device, handles="ahead", background=False
        )
        held.callback(memory.close)
        at, pages = np.arange(groups), np.random.default_rng(0).permutation(groups)
        memory.map(Grant(maps=np.stack([0 * at, at, pages], 1)))
        found = memory.keys(0), memory.values(0)
        for cache in found:
            cache.normal_()
        return found

    def contenders(self, backend: str) -> Iterator[Contender]:
        """Yield in which ways rows may lie for a back end, contiguous ones first.

        Library kernels take few: they are there to compare times with, not layouts.
        """
        yield Contender(backend, "pool", "contiguous", None)
        if backend == "sdpa":
            return
        for page in (16, 256) if backend == "flash" else PAGES:
            yield Contender(backend, "pool", "paged", page)
        if backend != "flash":
            yield Contender(backend, "pool", "padded", PADDED_TOKENS)
        if self._mapped is not None:
            whole = _whole(self._mapped[0])
            if whole or backend != "flash":
                yield Contender(backend, "mapped", "virtual", None if whole else self._page())

    def fits(self, batch: AttentionBatch) -> bool:
        """Say whether the batch has room in every way, in pages of the largest size."""
        longest, rows = max(batch.lengths), len(batch.lengths)
        slots = min(len(self._pool[0]), self._slots())
        # A padded page takes one token more.
        return all(
            fits(slots * page // (page + 1), rows, longest, page)
            for page in (max(PAGES), PADDED_TOKENS, self._page())
        )

    def call(self, who: Contender, batch: AttentionBatch) -> Callable[[], Any]:
        """Return a call of the contender's back end for a batch."""
        lengths, new = np.array(batch.lengths), np.array(batch.new)
        caches, layout = self._laid_out(who, lengths)
        kernel = prefill if batch.mode == "prefill" else decode
        more = {"window": batch.window, "sinks": batch.sinks}
        return attention_call(kernel, self.heads[0], caches, layout, new, who.backend, **more)

    def _laid_out(self, who: Contender, lengths: IntArray) -> tuple[Caches, BlockTable | Strided]:
        if who.layout == "contiguous":
            return self._pool, side_by_side(lengths)
        if who.layout == "virtual":
            assert self._mapped is not None
            return self._mapped, side_by_side(lengths, self._page())
        assert who.page_tokens is not None
        if who.layout == "padded":
            keys, values = self._pool
            return (_padded(keys), _padded(values)), side_by_side(lengths, PADDED_TOKENS)
        page = who.page_tokens
        order = np.random.default_rng(0).permutation(len(self._pool[0]) // page)
        keys, values = (as_pages(cache, page) for cache in self._pool)
        return (keys, values), shuffled(lengths, page, order)

    def _page(self) -> int:
        """Return the tokens of a padded virtual page; 1 if rows may begin anywhere."""
        return 1 if self._mapped is None or _whole(self._mapped[0]) else self._mapped[0].shape[1]

    def _slots(self) -> int:
        """Return the tokens that the mapped memory holds."""
        cache = self._pool[0].unsqueeze(0) if self._mapped is None else self._mapped[0]
        return cache.shape[0] * cache.shape[1]


def backends(kind: str) -> tuple[str, ...]:
    """Return the back ends that are measured on a kind of device, our own first."""
    if kind == "cuda":
        return ("triton", "flash", "sdpa")
    ours = "cpu" if probe("cpu", "cpu", "float32", 64, None).ok else "reference"
    return (ours, "sdpa")


def _whole(cache: torch.Tensor) -> bool:
    """Say whether the rows of a virtual cache have no gaps."""
    return cache.shape[0] == 1 or cache.stride(0) == cache.shape[1] * cache.stride(1)


def _padded(cache: torch.Tensor) -> torch.Tensor:
    """View slots as pages of `PADDED_TOKENS`, each with a gap behind it."""
    token = cache.stride(0)
    page = -(-int((PADDED_TOKENS + GAP_TOKENS) * token) // ALIGNED) * ALIGNED
    pages = (cache.numel() - PADDED_TOKENS * token) // page + 1
    size = (pages, PADDED_TOKENS, *cache.shape[1:])
    return cache.as_strided(size, (page, token, cache.stride(1), 1))
