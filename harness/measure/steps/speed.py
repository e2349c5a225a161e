"""Times of attention by back end, batch, context and page size, each beside its floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from allocators.base import Unsupported
from harness.measure.job import Job, one_line
from harness.measure.layouts import attention_call, fits, shuffled, side_by_side
from harness.measure.timing import MIB, Timer, copy_bytes_s, product_flops_s
from kernels import decode, prefill

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
        caches = _caches(shape, dtype, job.device, kv_bytes)
        for page in PAGES[: 2 if shape != SHAPES[kind][0] else None]:
            for batch in batches(kind, job.quick):
                what = f"times {shape} page {page} {batch}"
                if not fits(len(caches[0]), batch.rows, batch.length, page or 1):
                    continue
                if job.room(what, 0.3):
                    found = _rows(timer, shape[0], caches, batch, page, repeats)
                    rows.extend(_with_floor(row, floor) for row in found)
            job.save()
        del caches


def _with_floor(row: dict[str, Any], floor: dict[str, Any]) -> dict[str, Any]:
    """Add the least seconds that this device could take, and the ratio to it."""
    least_s = max(row["bytes"] / floor["copy_bytes_s"], row["flops"] / floor["product_flops_s"])
    ratio = row["median_s"] / least_s if row["status"] == "ok" else None
    return {**row, "floor_s": least_s, "ratio": ratio}


Caches = tuple[torch.Tensor, torch.Tensor]


def _caches(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, kv_bytes: int
) -> Caches:
    """Return one layer's keys and values, [slots, kv_heads, head_dim], in whole pages."""
    _, kv_heads, dim = shape
    largest = max(page or 1 for page in PAGES)
    slots = kv_bytes // (2 * kv_heads * dim * dtype.itemsize) // largest * largest
    size = (slots, kv_heads, dim)
    keys, values = (torch.empty(size, dtype=dtype, device=device).normal_() for _ in range(2))
    return keys, values


def _rows(
    timer: Timer, heads: int, caches: Caches, batch: AttentionBatch, page: int | None, repeats: int
) -> Iterator[dict[str, Any]]:
    """Yield a row of the record for each back end."""
    slots, kv_heads, dim = caches[0].shape
    new = np.full(batch.rows, max(1, batch.new))
    lengths = np.full(batch.rows, batch.length)
    if page is None:
        layout = side_by_side(lengths)
    else:
        layout = shuffled(lengths, page, np.random.default_rng(0).permutation(slots // page))
        caches = tuple(cache.unflatten(0, (slots // page, page)) for cache in caches)
    numbers = 2 * batch.rows * (batch.length * kv_heads + max(1, batch.new) * heads) * dim
    for backend in BACKENDS[timer.device.type]:
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
            "bytes": caches[0].element_size() * numbers,
            "flops": 4 * batch.rows * batch.seen * heads * dim,
        }
        try:
            kernel = prefill if batch.new else decode
            work = attention_call(kernel, heads, caches, layout, new, backend)
            row |= timer.measure(work, repeats)
        except Unsupported as refusal:
            row |= {"status": "unsupported", "reason": str(refusal)}
        except Exception as error:
            row |= {"status": "failed", "reason": one_line(error)}
        yield row
