"""Times on a device: of single calls with cold caches, of the parts of a pass, and their spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch

MIB = 2**20
#: what the device is kept busy with while a call is queued, so that the gaps between a call's
#: launches are not counted as the device's time
QUEUE_CYCLES = 1_000_000
#: read before a sample where the device does not tell the size of its last cache
FLUSH_BYTES = 256 * MIB


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return count, median, p10, p90 and p99 of samples, in seconds; the last three are samples."""
    low, high, last = np.quantile(seconds, [0.1, 0.9, 0.99], method="inverted_cdf").tolist()
    return {
        "samples": len(seconds),
        "median_s": float(np.median(seconds)),
        "p10_s": low,
        "p90_s": high,
        "p99_s": last,
    }


class Timer:
    """Takes times on `device`, on CUDA by its events; `cuda` is given by tests."""

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        self.device, self._cuda = device, cuda or torch.cuda
        self._on_cuda = device.type == "cuda"
        self.flush_bytes = 0
        if self._on_cuda:
            properties = self._cuda.get_device_properties(device)
            self.flush_bytes = 2 * getattr(properties, "L2_cache_size", 0) or FLUSH_BYTES

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._on_cuda:
            self._cuda.synchronize(self.device)

    def mark(self) -> Any:
        """Return a mark behind all work asked for so far, for `laps`."""
        if not self._on_cuda:
            return perf_counter()
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def laps(self, marks: Sequence[Any]) -> list[float]:
        """Return the seconds from each mark to the next; waits for the device."""
        self.synchronize()
        if self._on_cuda:
            return [start.elapsed_time(end) * 1e-3 for start, end in pairwise(marks)]
        return [end - start for start, end in pairwise(marks)]

    def call_s(self, work: Callable[[], Any], calls: int) -> float:
        """Return the host's seconds of one of `calls` calls, the device's work included."""
        self.synchronize()
        start_s = perf_counter()
        for _ in range(calls):
            work()
        self.synchronize()
        return (perf_counter() - start_s) / calls

    def measure(self, work: Callable[[], Any], repeats: int) -> dict[str, Any]:
        """Return the spread of `repeats` samples of `work()`, and `call_s`.

        On CUDA a sample is the time between two events around one call, with the last-level cache
        full of something else before it (a layer's KV is not in it either, when a step comes to
        that layer) and the call queued while the device is busy.  `call_s` is the time of a call as
        the host sees it, of many one after the other: larger where launching takes longer than
        computing.
        """
        for _ in range(3):  # compiles, loads, allocates
            work()
        self.synchronize()
        marks = []
        for _ in range(repeats):
            self._disturb()
            marks.append(self.mark())
            work()
            marks.append(self.mark())
        # Every other lap is what lies between two samples.
        return {**spread(self.laps(marks)[::2]), "call_s": self.call_s(work, repeats)}

    def _disturb(self) -> None:
        """On CUDA, fill the last-level cache and keep the device busy for a while.

        By reading: what had been written would be written back within the sample, at its expense.
        """
        if self._on_cuda:
            self._flushed.amax()
            self._cuda._sleep(QUEUE_CYCLES)

    @cached_property
    def _flushed(self) -> torch.Tensor:
        return torch.zeros(self.flush_bytes // 4, dtype=torch.int32, device=self.device)


def copy_bytes_s(timer: Timer, size_bytes: int, repeats: int) -> float:
    """Return the bytes read and written in a second by a copy on the device."""
    source = torch.zeros(size_bytes, dtype=torch.int8, device=timer.device)
    target = torch.empty_like(source)
    return 2 * size_bytes / timer.measure(lambda: target.copy_(source), repeats)["median_s"]


def product_flops_s(timer: Timer, size: int, dtype: torch.dtype, repeats: int) -> float:
    """Return the FLOP/s of a product of two random matrices of `size` x `size`."""
    a, b = torch.randn(2, size, size, device=timer.device).to(dtype)
    return 2 * size**3 / timer.measure(lambda: a @ b, repeats)["median_s"]
