"""Times of attention by back end, batch, context and page size, each beside its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from allocators.base import IntArray, Unsupported
from harness.measure.job import Job, one_line
from harness.measure.layouts import shuffled, side_by_side
from harness.measure.timing import MIB, Timer, copy_bytes_s, product_flops_s
from kernels import decode, place, prefill

#: (query heads, KV heads, head size): grouped queries as of Llama-3-8B, and none as of OPT-13B
SHAPES = {"cuda": ((32, 8, 128), (40, 40, 128)), "cpu": ((8, 2, 64),)}
BACKENDS = {"cuda": ("triton", "flash", "sdpa"), "cpu": ("cpu", "sdpa")}
PAGES: tuple[int | None, ...] = (16, None, 256, 1)
#: KV of one batch at most, on a GPU (a share of what is free too) and on a CPU
KV_BYTES = {"cuda": 4096 * MIB, "cpu": 64 * MIB}


@dataclass(frozen=True)
class AttentionBatch:
    """`rows` of `past` tokens and `new` ones each; new 0 is a decode of past tokens."""

    rows: int
    past: int
    new: int = 0

    @property
    def length(self) -> int:
        return self.past + self.new

    @property
    def seen(self) -> int:
        """The keys that the queries of one row see: all before a query, and its own."""
        return self.new * self.past + self.new * (self.new + 1) // 2 if self.new else self.past


def batches(device: str, quick: bool) -> list[AttentionBatch]:
    """Return what is measured, what matters most first."""
    if quick or device == "cpu":
        sizes: list[tuple[int, ...]] = [(2, 64), (4, 128), (1, 0, 64), (1, 64, 32)]
    else:
        decodes = [(rows, past) for past in (1024, 4096, 256, 16384) for rows in (64, 1, 16, 256)]
        prefills = [(1, 0, 2048), (8, 0, 512), (1, 4096, 512), (1, 0, 512)]
        sizes = [*decodes[:4], *prefills, *decodes[4:]]
    return [AttentionBatch(*size) for size in sizes]


def measure(job: Job) -> None:
    """Fill `results.floor` (what the device reaches here) and `results.times`."""
    kind, timer = job.device.type, Timer(job.device)
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    repeats = 3 if job.quick else 30
    small = job.quick or kind == "cpu"
    floor = {
        "dtype": str(dtype).removeprefix("torch."),
        "copy_bytes_s": copy_bytes_s(timer, (16 if small else 1024) * MIB, repeats),
        "product_flops_s": product_flops_s(timer, 256 if small else 8192, dtype, repeats),
        "flushed_bytes": timer.flush_bytes,
    }
    rows: list[dict[str, Any]] = []
    job.results |= {"floor": floor, "times": rows}
    for shape in SHAPES[kind]:
        kv_bytes = KV_BYTES[kind]
        if kind == "cuda":
            kv_bytes = min(kv_bytes, torch.cuda.mem_get_info(job.device)[0] // 3)
        bench = AttentionBench(timer, shape, dtype, kv_bytes, repeats)
        for page in PAGES[: 2 if shape != SHAPES[kind][0] else None]:
            for batch in batches(kind, job.quick):
                what = f"times {shape} page {page} {batch}"
                if bench.fits(batch, page) and job.room(what, 0.3):
                    rows.extend(with_floor(row, floor) for row in bench.rows(batch, page))
            job.save()
        del bench


def with_floor(row: dict[str, Any], floor: dict[str, Any]) -> dict[str, Any]:
    """Add the least seconds that this device could take, and the ratio to it."""
    least_s = max(row["bytes"] / floor["copy_bytes_s"], row["flops"] / floor["product_flops_s"])
    ratio = row["median_s"] / least_s if row["status"] == "ok" else None
    return {**row, "floor_s": least_s, "ratio": ratio}


class AttentionBench:
    """One layer's KV of one shape, read in any layout."""

    def __init__(
        self, timer: Timer, shape: tuple[int, int, int], dtype: torch.dtype, kv_bytes: int,
        repeats: int,
    ) -> None:  # fmt: skip
        self._timer, self._shape, self._repeats = timer, shape, repeats
        _, kv_heads, dim = shape
        largest = max(page or 1 for page in PAGES)
        slots = kv_bytes // (2 * kv_heads * dim * dtype.itemsize)
        self._slots = slots // largest * largest
        self._caches = [
            torch.empty((self._slots, kv_heads, dim), dtype=dtype, device=timer.device).normal_()
            for _ in range(2)
        ]

    def fits(self, batch: AttentionBatch, page: int | None) -> bool:
        """Say whether the KV of a batch has room."""
        page = page or 1
        return batch.rows * -(-batch.length // page) * page <= self._slots

    def rows(self, batch: AttentionBatch, page: int | None) -> Iterator[dict[str, Any]]:
        """Yield a row of the record for each back end."""
        heads, kv_heads, dim = self._shape
        queries = batch.rows * max(1, batch.new)
        read = batch.rows * batch.length * 2 * kv_heads * dim
        for backend in BACKENDS[self._timer.device.type]:
            row: dict[str, Any] = {
                "backend": backend,
                "mode": "prefill" if batch.new else "decode",
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": dim,
                "batch": batch.rows,
                "past_tokens": batch.past,
                "new_tokens": max(1, batch.new),
                "page_tokens": page,
                "status": "ok",
                "reason": "",
                "bytes": self._caches[0].element_size() * (read + 2 * queries * heads * dim),
                "flops": 4 * batch.rows * batch.seen * heads * dim,
            }
            try:
                work = self._work(batch, page, backend)
                row |= self._timer.measure(work, self._repeats)
            except Unsupported as refusal:
                row |= {"status": "unsupported", "reason": str(refusal)}
            except Exception as error:
                row |= {"status": "failed", "reason": one_line(error)}
            yield row

    def _work(self, batch: AttentionBatch, page: int | None, backend: str) -> Callable[[], Any]:
        heads, _, dim = self._shape
        lengths: IntArray = np.full(batch.rows, batch.length)
        new: IntArray = np.full(batch.rows, max(1, batch.new))
        keys, values = self._caches
        if page is None:
            placed = place(side_by_side(lengths), keys, new)
        else:
            pages = self._slots // page
            keys, values = (c.view(pages, page, *c.shape[1:]) for c in (keys, values))
            order = np.random.default_rng(0).permutation(pages)
            placed = place(shuffled(lengths, page, order), keys, new)
        q = torch.empty((int(new.sum()), heads, dim), dtype=keys.dtype, device=keys.device)
        q.normal_()
        out, scale = torch.empty_like(q), 1.0 / math.sqrt(dim)
        if batch.new:
            return lambda: prefill(q, keys, values, placed, None, scale, backend=backend, out=out)
        return lambda: decode(q, keys, values, placed, scale, backend=backend, out=out)
