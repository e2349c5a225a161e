"""Times of single calls on a device, and the floors to compare them with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import torch

MIB = 2**20
#: what the device is kept busy with while a call is queued, so that the gaps between a call's
#: launches are not counted as the device's time
QUEUE_CYCLES = 1_000_000
#: cleared before a sample where the device does not tell the size of its last cache
FLUSH_BYTES = 256 * MIB


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return count, median, p10, p90 and p99 of samples, in seconds."""
    return {
        "samples": len(seconds),
        "median_s": median(seconds),
        "p10_s": quantile(seconds, 0.1),
        "p90_s": quantile(seconds, 0.9),
        "p99_s": quantile(seconds, 0.99),
    }


class Timer:
    """Takes times on `device`; `cuda` is given by tests.

    On CUDA a sample is the time between two events around one call, with the last-level cache
    overwritten before it (a layer's KV is not in it either, when a step comes to that layer) and
    the call queued while the device is busy.  `call_s` is the time of a call as the host sees it,
    of many one after the other: larger where launching takes longer than computing.
    """

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        self.device, self._cuda = device, cuda or torch.cuda
        self._flush: torch.Tensor | None = None
        self.flush_bytes = 0
        if device.type == "cuda":
            properties = self._cuda.get_device_properties(device)
            self.flush_bytes = 2 * getattr(properties, "L2_cache_size", 0) or FLUSH_BYTES
            self._flush = self._buffer(self.flush_bytes)

    def _buffer(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.int8, device=self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            self._cuda.synchronize(self.device)

    def measure(self, work: Callable[[], Any], repeats: int) -> dict[str, Any]:
        """Return the spread of `repeats` samples of `work()`, and `call_s`."""
        for _ in range(3):  # compiles, loads, allocates
            work()
        self.synchronize()
        samples = self._events(work, repeats) if self._flush is not None else self._walls(
            work, repeats
        )  # fmt: skip
        self.synchronize()
        began_s = perf_counter()
        for _ in range(repeats):
            work()
        self.synchronize()
        return {**spread(samples), "call_s": (perf_counter() - began_s) / repeats}

    def _events(self, work: Callable[[], Any], repeats: int) -> list[float]:
        pairs = []
        assert self._flush is not None
        for _ in range(repeats):
            start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            self._cuda._sleep(QUEUE_CYCLES)
            start.record()
            work()
            end.record()
            pairs.append((start, end))
        self.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]

    def _walls(self, work: Callable[[], Any], repeats: int) -> list[float]:
        seconds = []
        for _ in range(repeats):
            began_s = perf_counter()
            work()
            seconds.append(perf_counter() - began_s)
        return seconds


def copy_bytes_s(timer: Timer, size: int, repeats: int) -> float:
    """Return the bytes read and written in a second by a copy of `size` bytes on the device."""
    source = torch.zeros(size, dtype=torch.int8, device=timer.device)
    target = torch.empty_like(source)
    return 2 * size / timer.measure(lambda: target.copy_(source), repeats)["median_s"]


def product_flops_s(timer: Timer, size: int, dtype: torch.dtype, repeats: int) -> float:
    """Return the FLOP/s of a product of two random matrices of `size` x `size`."""
    generator = torch.Generator(timer.device).manual_seed(0)
    a, b = (
        torch.randn(size, size, device=timer.device, generator=generator).to(dtype)
        for _ in range(2)
    )
    return 2 * size**3 / timer.measure(lambda: a @ b, repeats)["median_s"]
