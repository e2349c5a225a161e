"""Serves small workloads for real and notes what was emitted, moved and resident."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from allocators.base import Allocator, Geometry
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.observer import StepView
from workloads.requests import RequestTable

if TYPE_CHECKING:
    from harness.cost.shapes import ModelShape
    from harness.executors.model.real_run import RealRun
    from kernels.memory import Backing

FAMILIES: dict[str, type[Allocator]] = {
    "contiguous": Contiguous,
    "paged": Paged,
    "virtual": Virtual,
}
SAMPLING = {
    "greedy": SamplingSpec("greedy"),
    "parallel": SamplingSpec("parallel", n=4, temperature=0.9, top_p=0.9),
    "beam": SamplingSpec("beam", width=4),
}
OS_PAGE_BYTES = 4096


@dataclass
class Served:
    """What happened in one run."""

    digest: str = ""
    steps: int = 0
    preemptions: int = 0
    swapped_slots: int = 0
    copied_slots: int = 0
    hit_tokens: int = 0
    outputs: list[np.ndarray] = field(default_factory=list)
    #: resident bytes, as the system says, less what the allocator says, before the first step
    resident_offset_bytes: int = 0
    #: least and most of that difference over the run, less the offset
    resident_difference_bytes: list[int] = field(default_factory=lambda: [0, 0])
    resident_peak_bytes: int = 0


class Watcher:
    """An observer that counts, and after each step asks the system what is resident."""

    def __init__(self, served: Served, memory: Backing, allocator: Allocator) -> None:
        self._served, self._memory = served, memory
        served.resident_offset_bytes = memory.resident_bytes() - told_bytes(allocator)

    def on_step(self, step: StepView) -> None:
        served = self._served
        step.allocator.check()
        for grant in step.plan.all_grants:
            served.copied_slots += int(grant.copies[:, 2].sum())
            served.swapped_slots += int(grant.swaps_out[:, 2].sum() + grant.swaps_in[:, 2].sum())
        served.hit_tokens += step.plan.hit_tokens
        held = self._memory.resident_bytes()
        off = held - told_bytes(step.allocator) - served.resident_offset_bytes
        low, high = served.resident_difference_bytes
        served.resident_difference_bytes = [min(low, off), max(high, off)]
        served.resident_peak_bytes = max(served.resident_peak_bytes, held)


def told_bytes(allocator: Allocator) -> int:
    """Return the bytes that the allocator says are resident now."""
    active, cached, _ = allocator.balance()
    if allocator.pages_per_group:
        return (active + cached) * allocator.pages_per_group * allocator.page_bytes
    g = allocator.geometry
    # A pool is all there from the start.
    return g.capacity_tokens // g.page_tokens * g.page_tokens * g.bytes_per_token


def serve(
    real: RealRun, allocator: Allocator, requests: RequestTable, mode: str, **engine: Any
) -> Served:
    """Serve `requests`; a pool's memory is NaN until it is written."""
    served = Served()
    with real.executor(allocator, requests, SAMPLING[mode]) as executor:
        memory = executor.memory
        if not allocator.pages_per_group:
            for layer in range(allocator.geometry.layers):
                memory.keys(layer).fill_(torch.nan)
                memory.values(layer).fill_(torch.nan)
        watcher = Watcher(served, memory, allocator)
        options = EngineSpec(max_num_seqs=allocator.geometry.max_seqs, **engine)
        log = Engine(
            allocator, requests, SAMPLING[mode], options, executor, real.seed, [watcher]
        ).run("measure")
        log.check()
        served.digest = executor.histories.digest()
        served.outputs = [executor.histories.output(i) for i in range(len(requests))]
    served.steps = log.steps
    served.preemptions = int(log.timeline["preemptions"].sum())
    return served


def geometry(shape: ModelShape, tokens: int, host: int, max_len: int, max_seqs: int) -> Geometry:
    """Return a pool for `shape` of `tokens` slots, and `host` more in host memory."""
    return Geometry(
        capacity_tokens=tokens,
        host_tokens=host,
        max_seqs=max_seqs,
        max_len=max_len,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype_bytes=shape.dtype_bytes,
    )


def differing(found: Served, expected: Served) -> dict[str, Any]:
    """Say how far two runs are apart: tokens and requests that differ, and the first of them."""
    tokens, wrong, first = 0, 0, None
    for number, (a, b) in enumerate(zip(found.outputs, expected.outputs, strict=True)):
        off = a != b
        tokens += int(off.sum())
        wrong += bool(off.any())
        if first is None and off.any():
            sequence, position = np.argwhere(off)[0].tolist()
            first = {"request": number, "sequence": sequence, "token": position}
    return {"differing_tokens": tokens, "differing_requests": wrong, "first_difference": first}
