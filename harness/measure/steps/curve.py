"""The step `curve`: times of attention by where rows lie, all contenders in one loop.

In each round every contender of a batch is timed once, in an order drawn anew, so that whatever
the machine does meanwhile falls on all of them; ratios to contiguous rows are taken within a round.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from allocators.base import Unsupported
from harness.measure.contenders import Arena, AttentionBatch, Contender, Heads, backends
from harness.measure.job import Job, one_line
from harness.measure.timing import (
    INTERVAL,
    MIB,
    Timer,
    median_interval,
    product_flops_s,
    read_bytes_s,
    spread,
)

#: (query heads, KV heads, head size): grouped queries as of Llama-3-8B, and none as of OPT-13B
SHAPES: dict[str, tuple[Heads, ...]] = {
    "cuda": ((32, 8, 128), (40, 40, 128)),
    "cpu": ((8, 2, 64), (5, 5, 64)),
}
#: the same of a model with windows and sinks, and its window: gpt-oss-20b; on a CPU made up
WINDOWED: dict[str, tuple[Heads, int]] = {"cuda": ((64, 8, 64), 128), "cpu": ((8, 2, 64), 32)}
#: KV of one layer at most, in each of the two memories (on a GPU a share of what is free too)
KV_BYTES = {"cuda": 12 * 1024 * MIB, "cpu": 96 * MIB}
ROUNDS = {"cuda": 30, "cpu": 15}
QUICK_ROUNDS = 3
#: what a ceiling reads
READ_BYTES = {"cuda": 2048 * MIB, "cpu": 128 * MIB}
SEED = 0


def batches(device: str, quick: bool) -> list[AttentionBatch]:
    """Return what is measured, what matters most first."""
    if quick:
        sizes: list[tuple[Any, ...]] = [(4, 64), (4, 64, 0, True), (1, 0, 64), (2, 0, 64, True)]
    elif device == "cpu":
        sizes = [(32, 512), (1, 2048), (8, 1024), (32, 512, 0, True), (128, 128)]
        sizes += [(1, 0, 512), (4, 0, 128, True), (1, 1024, 128)]
    else:
        sizes = [(64, 4096), (1, 0, 2048), (64, 4096, 0, True), (8, 0, 512, True), (8, 4096)]
        sizes += [(1, 1024), (128, 4096), (1, 4096, 512), (8, 0, 512), (64, 1024), (128, 1024)]
        sizes += [(1, 16384), (16, 1024), (128, 1024, 0, True), (1, 0, 8192)]
    return [AttentionBatch.of(*size) for size in sizes]


def windowed_batches(device: str, quick: bool) -> list[AttentionBatch]:
    """Return the same for layers of a model with windows and sinks: both kinds of its layers.

    The same rows with sinks and without are what sinks cost; a row of 4,096 through a window of
    128 reads what a row of 128 does.
    """
    window = WINDOWED[device][1]
    long, prompt = (64, 64) if quick else (512, 256) if device == "cpu" else (4096, 2048)
    rows = 4 if quick else 16 if device == "cpu" else 64
    sizes: list[tuple[Any, ...]] = [(rows, long, 0, False, window, True)]
    if quick:
        sizes += [(1, 0, prompt, False, window, True)]
    else:
        sizes += [(rows, long, 0, False, None, True), (rows, long), (rows, window, 0, False, None)]
        sizes += [(1, 0, prompt, False, window, True), (1, 0, prompt, False, None, True)]
        sizes += [(rows, long, 0, True, window, True), (1, 0, prompt)]
    return [AttentionBatch.of(*size) for size in sizes]


def run(job: Job) -> None:
    """Fill `results.ceiling` (what the device reaches here) and `results.rows`."""
    kind, timer = job.device.type, Timer(job.device)
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    rounds = QUICK_ROUNDS if job.quick else ROUNDS[kind]
    read = read_bytes_s(timer, 16 * MIB if job.quick else READ_BYTES[kind], max(5, rounds))
    ceiling = {
        "read": read,
        "read_bytes_s": max(read.values()),
        "product_flops_s": product_flops_s(timer, _product_size(job), dtype, rounds),
    }
    rows: list[dict[str, Any]] = []
    job.results |= {
        "dtype": str(dtype).removeprefix("torch."),
        "ceiling": ceiling,
        "flushed_bytes": timer.flush_bytes,
        "rounds": rounds,
        "seed": SEED,
        "interval": INTERVAL,
        "rows": rows,
    }
    random = np.random.default_rng(SEED)
    first, *others = ((heads, batches(kind, job.quick)) for heads in SHAPES[kind])
    windowed = (WINDOWED[kind][0], windowed_batches(kind, job.quick))
    for heads, asked in (first, windowed, *others):
        with ExitStack() as held:
            arena = Arena(heads, dtype, job.device, _kv_bytes(job), held)
            if arena.refused:
                job.results["not_mapped"] = arena.refused
            for batch in asked:
                what = f"{batch.mode} of {len(batch.lengths)} rows, {max(batch.lengths)} tokens"
                what += f", window {batch.window}" if batch.window else ""
                if arena.fits(batch) and job.room(f"{heads} {what}", 0.5):
                    found = _measure(timer, arena, batch, rounds, random)
                    rows += [_with_floor(row, ceiling) for row in found]
                    job.save()
            del arena


def _product_size(job: Job) -> int:
    return 256 if job.quick else 8192 if job.device.type == "cuda" else 1024


def _kv_bytes(job: Job) -> int:
    if job.device.type == "cuda":
        free = torch.cuda.mem_get_info(job.device)[0]
        return min(KV_BYTES["cuda"] // (16 if job.quick else 1), free // 4)
    return KV_BYTES["cpu"] // (3 if job.quick else 1)


def _measure(
    timer: Timer, arena: Arena, batch: AttentionBatch, rounds: int, random: np.random.Generator
) -> list[dict[str, Any]]:
    """Return a row of the record for each contender."""
    rows, calls = {}, {}
    kind = timer.device.type
    for who in (who for backend in backends(kind) for who in arena.contenders(backend)):
        rows[who] = row = _row(who, arena.heads, batch, arena.dtype_bytes)
        try:
            calls[who] = arena.call(who, batch)
            calls[who]()  # compiles; a refusal shows here
            timer.synchronize()
        except Unsupported as refusal:
            row |= {"status": "unsupported", "reason": str(refusal)}
        except Exception as error:
            row |= {"status": "failed", "reason": one_line(error)}
        if row["status"] != "ok":
            calls.pop(who, None)
    taken = dict(zip(calls, timer.rounds(list(calls.values()), rounds, random), strict=True))
    for who, seconds in taken.items():
        rows[who] |= spread(seconds) | {"call_s": timer.call_s(calls[who], max(3, rounds // 3))}
        if who.baseline in taken:
            ratios = median_interval(seconds / taken[who.baseline])
            rows[who] |= dict(zip(("ratio", "ratio_low", "ratio_high"), ratios, strict=True))
    return list(rows.values())


def _row(who: Contender, heads: Heads, batch: AttentionBatch, dtype_bytes: int) -> dict[str, Any]:
    query_heads, kv_heads, dim = heads
    return {
        "mode": batch.mode,
        "heads": query_heads,
        "kv_heads": kv_heads,
        "head_dim": dim,
        "batch": len(batch.lengths),
        "rows": "even" if batch.even else "ragged",
        "tokens": round(float(np.mean(batch.lengths)), 1),
        "new_tokens": round(float(np.mean(batch.new)), 1),
        "window": batch.window,
        "sinks": batch.sinks,
        "backend": who.backend,
        "memory": who.memory,
        "layout": who.layout,
        "page_tokens": who.page_tokens,
        "status": "ok",
        "reason": "",
        "bytes": batch.numbers(heads) * dtype_bytes,
        "flops": 4 * batch.seen * query_heads * dim,
    }


def _with_floor(row: dict[str, Any], ceiling: dict[str, Any]) -> dict[str, Any]:
    """Add the least seconds that this device could take, and the share of that rate reached."""
    read_s = row["bytes"] / ceiling["read_bytes_s"]
    compute_s = row["flops"] / ceiling["product_flops_s"]
    floor_s, bound = max((read_s, "reading"), (compute_s, "arithmetic"))
    share = floor_s / row["median_s"] if row["status"] == "ok" else None
    return {**row, "floor_s": floor_s, "bound": bound, "share": share}
