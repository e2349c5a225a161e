"""Times of attention by back end, batch, context and page size, each beside its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from allocators.base import IntArray, Unsupported
from harness.measure.cases import shuffled, side_by_side
from harness.measure.job import Job, one_line
from harness.measure.timing import MIB, Timer, copy_bytes_s, product_flops_s
from kernels import decode, place, prefill

#: (query heads, KV heads, head size): grouped queries as of Llama-3-8B, and none as of OPT-13B
SHAPES = {"cuda": ((32, 8, 128), (40, 40, 128)), "cpu": ((8, 2, 64),)}
BACKENDS = {"cuda": ("triton", "flash", "sdpa"), "cpu": ("cpu", "sdpa")}
PAGES: tuple[int | None, ...] = (16, None, 256, 1)
#: KV of one point at most, on a GPU (a share of what is free too) and on a CPU
KV_BYTES = {"cuda": 4096 * MIB, "cpu": 64 * MIB}


@dataclass(frozen=True)
class Point:
    """`batch` rows of `past` tokens and `new` ones each; new 0 is a decode of past tokens."""

    batch: int
    past: int
    new: int = 0

    @property
    def length(self) -> int:
        return self.past + self.new


def points(device: str, quick: bool) -> list[Point]:
    """Return what is measured, what matters most first."""
    if quick or device == "cpu":
        return [Point(2, 64), Point(4, 128), Point(1, 0, 64), Point(1, 64, 32)]
    decodes = [Point(b, c) for c in (1024, 4096, 256, 16384) for b in (64, 1, 16, 256)]
    prefills = [Point(1, 0, 2048), Point(8, 0, 512), Point(1, 4096, 512), Point(1, 0, 512)]
    return [*decodes[:4], *prefills, *decodes[4:]]


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
        bench = Bench(timer, shape, dtype, kv_bytes, repeats)
        for page in PAGES[: 2 if shape != SHAPES[kind][0] else None]:
            for point in points(kind, job.quick):
                what = f"times {shape} page {page} {point}"
                if not bench.fits(point, page) or not job.room(what, 0.3):
                    continue
                rows.extend(with_floor(row, floor) for row in bench.rows(point, page))
            job.save()
        del bench


def with_floor(row: dict[str, Any], floor: dict[str, Any]) -> dict[str, Any]:
    """Add the least seconds that this device could take, and the ratio to it."""
    least_s = max(row["bytes"] / floor["copy_bytes_s"], row["flops"] / floor["product_flops_s"])
    found = {**row, "floor_s": least_s, "ratio": None}
    if row["status"] == "ok":
        found["ratio"] = row["median_s"] / least_s
    return found


class Bench:
    """One layer's KV of one shape, read in any layout."""

    def __init__(
        self, timer: Timer, shape: tuple[int, int, int], dtype: torch.dtype, kv_bytes: int,
        repeats: int,
    ) -> None:  # fmt: skip
        self._timer, self._shape, self._repeats = timer, shape, repeats
        _, kv_heads, dim = shape
        slots = kv_bytes // (2 * kv_heads * dim * dtype.itemsize)
        self._slots = slots // max(p or 1 for p in PAGES) * max(p or 1 for p in PAGES)
        self._caches = [
            torch.empty((self._slots, kv_heads, dim), dtype=dtype, device=timer.device).normal_()
            for _ in range(2)
        ]

    def fits(self, point: Point, page: int | None) -> bool:
        """Say whether the KV of a point has room."""
        page = page or 1
        return point.batch * -(-point.length // page) * page <= self._slots

    def rows(self, point: Point, page: int | None) -> Iterator[dict[str, Any]]:
        """Yield a row for each back end."""
        heads, kv_heads, dim = self._shape
        size = self._caches[0].element_size()
        queries = point.batch * max(1, point.new)
        read = point.batch * point.length * 2 * kv_heads * dim
        # A query sees what is before it and itself.
        seen = (
            point.new * point.past + point.new * (point.new + 1) // 2 if point.new else point.past
        )
        for backend in BACKENDS[self._timer.device.type]:
            row: dict[str, Any] = {
                "backend": backend,
                "mode": "prefill" if point.new else "decode",
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": dim,
                "batch": point.batch,
                "past_tokens": point.past,
                "new_tokens": max(1, point.new),
                "page_tokens": page,
                "status": "ok",
                "reason": "",
                "bytes": size * (read + 2 * queries * heads * dim),
                "flops": 4 * point.batch * seen * heads * dim,
            }
            try:
                work = self._work(point, page, backend)
                row |= self._timer.measure(work, self._repeats)
            except Unsupported as refusal:
                row |= {"status": "unsupported", "reason": str(refusal)}
            except Exception as error:
                row |= {"status": "failed", "reason": one_line(error)}
            yield row

    def _work(self, point: Point, page: int | None, backend: str) -> Callable[[], Any]:
        heads, _, dim = self._shape
        lengths: IntArray = np.full(point.batch, point.length)
        new: IntArray = np.full(point.batch, max(1, point.new))
        keys, values = self._caches
        if page is None:
            rows = place(side_by_side(lengths), keys, new)
        else:
            pages = self._slots // page
            keys, values = (c.view(pages, page, *c.shape[1:]) for c in (keys, values))
            rng = np.random.default_rng(0)
            rows = place(shuffled(lengths, page, pages, rng), keys, new)
        q = torch.empty((int(new.sum()), heads, dim), dtype=keys.dtype, device=keys.device)
        q.normal_()
        out, scale = torch.empty_like(q), 1.0 / math.sqrt(dim)
        if point.new:
            return lambda: prefill(q, keys, values, rows, None, scale, backend=backend, out=out)
        return lambda: decode(q, keys, values, rows, scale, backend=backend, out=out)
