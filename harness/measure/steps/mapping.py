"""Decode while another thread maps: what vAttention's background mapping costs the step beside it.

The thread maps and unmaps page-groups of memory that nobody reads, one after the other without a
pause: more than any run asks for.  Samples with it and without take turns, in an order drawn anew
each round.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from allocators.base import Geometry, Grant
from allocators.virtual import PAGE_BYTES, Virtual
from harness.measure.contenders import Arena, AttentionBatch, Contender, backends
from harness.measure.job import Job
from harness.measure.serving import SMALLEST_PAGE
from harness.measure.steps.curve import SHAPES
from harness.measure.timing import INTERVAL, MIB, Timer, median_interval
from kernels.memory import Backing, backing_for

#: page-groups that are mapped and unmapped in turn
GROUPS = 16
#: what decodes: rows and tokens of each
BATCH = {"cuda": (64, 4096), "cpu": (16, 512)}
KV_BYTES = {"cuda": 2048 * MIB, "cpu": 16 * MIB}
ROUNDS, QUICK_ROUNDS = 30, 5
#: a sample is of as many calls as take this long
SAMPLE_S = 20e-3


def while_mapping(job: Job) -> dict[str, Any]:
    """Return seconds of decode alone and while a thread maps, and their ratio.

    Raises what the driver refuses: `Unsupported`, `OutOfMemory`.
    """
    kind, timer = job.device.type, Timer(job.device)
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    rows, tokens = (4, 64) if job.quick else BATCH[kind]
    batch = AttentionBatch.of(rows, tokens)
    random, taken = np.random.default_rng(0), {False: [], True: []}
    with ExitStack() as held:
        arena = Arena(SHAPES[kind][0], dtype, job.device, KV_BYTES[kind], held)
        work = arena.call(Contender(backends(kind)[0], "pool", "contiguous", None), batch)
        memory = held.enter_context(_memory(job.device, dtype))
        timer.call_s(work, 3)
        calls = max(1, round((SAMPLE_S / 4 if job.quick else SAMPLE_S) / timer.call_s(work, 3)))
        before_s, maps = memory.mapping_s, 0
        for _ in range(QUICK_ROUNDS if job.quick else ROUNDS):
            for busy in random.permutation([False, True]).tolist():
                with _mapping(memory, busy) as count:
                    taken[busy].append(timer.call_s(work, calls))
                maps += count[0]
        mapping_s = memory.mapping_s - before_s
        pages = 2 * GROUPS * maps
    ratio, low, high = median_interval(np.array(taken[True]) / np.array(taken[False]))
    return {
        "batch": rows,
        "tokens": tokens,
        "page_bytes": PAGE_BYTES[SMALLEST_PAGE[kind]],
        "samples": len(taken[True]),
        "calls": calls,
        "interval": INTERVAL,
        "alone_s": float(np.median(taken[False])),
        "mapping_s": float(np.median(taken[True])),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "pages_mapped": pages,
        "page_s": mapping_s / max(1, pages),
    }


def _memory(device: torch.device, dtype: torch.dtype) -> Backing:
    """Return a backing of `GROUPS` page-groups of one layer, made and not mapped."""
    name = SMALLEST_PAGE[device.type]
    page_tokens = PAGE_BYTES[name] // (64 * dtype.itemsize)
    room = Geometry(
        capacity_tokens=GROUPS * page_tokens, max_seqs=1, max_len=GROUPS * page_tokens,
        layers=1, kv_heads=1, head_dim=64, dtype_bytes=dtype.itemsize,
    )  # fmt: skip
    return backing_for(
        Virtual(room, page_size=name), dtype=dtype, device=device, handles="ahead", background=True
    )


@contextmanager
def _mapping(memory: Backing, busy: bool) -> Iterator[list[int]]:
    """Map and unmap in a thread while the block runs, if `busy`; the yielded list counts how often.

    An error of the thread is raised at the end of the block.
    """
    at = np.arange(GROUPS)
    entries = np.stack([0 * at, at, at], 1)
    # As beside a step: each is done by the backing's own thread.
    turn = (Grant(maps=entries), Grant(unmaps=entries))
    count, errors, over = [0], [], threading.Event()

    def work() -> None:
        try:
            while not over.is_set():
                for grant in turn:
                    memory.map_beside(grant)
                    memory.wait()
                count[0] += 1
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="map") if busy else None
    if thread is not None:
        thread.start()
    try:
        yield count
    finally:
        over.set()
        if thread is not None:
            thread.join()
    if errors:
        raise errors[0]
