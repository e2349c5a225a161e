"""Times on a device: of single calls with cold caches, of the parts of a pass, and their spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch

from harness.cost.curves import FloatArray

MIB = 2**20
#: what the device is kept busy with while a call is queued, so that the gaps between a call's
#: launches are not counted as the device's time
QUEUE_CYCLES = 1_000_000
#: read before a sample where the device does not tell the size of its last cache
FLUSH_BYTES = 256 * MIB
#: and on a CPU
CPU_FLUSH_BYTES = 64 * MIB
RESAMPLES = 2000
#: two-sided 95 % quantiles of Student's t by degrees of freedom, as every table prints them: a
#: machine that measures need not have SciPy (`options.NEEDED`)
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
INTERVAL = f"95 %, of the median over rounds, by percentile bootstrap ({RESAMPLES} resamples)"


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


def median_interval(samples: FloatArray) -> tuple[float, float, float]:
    """Return the median of samples [n], and from where to where it lies; see `INTERVAL`.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    random = np.random.default_rng(0)
    drawn = np.median(random.choice(samples, (RESAMPLES, len(samples))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return float(np.median(samples)), low, high


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean, and its 95 % interval by Student's t: None of a single value, or of many."""
    mean, count = float(np.mean(values)), len(values)
    if count - 1 not in STUDENT_T:
        return mean, None, None
    half = STUDENT_T[count - 1] * float(np.std(values, ddof=1)) / count**0.5
    return mean, mean - half, mean + half


class Timer:
    """Takes times on `device`, on CUDA by its events; `cuda` is given by tests."""

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        self.device, self._cuda = device, cuda or torch.cuda
        self._on_cuda = device.type == "cuda"
        self.flush_bytes = CPU_FLUSH_BYTES
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
        """Return the spread of `repeats` samples of `work()` by itself; see `rounds`."""
        return spread(self.rounds([work], repeats, np.random.default_rng(0))[0])

    def rounds(
        self, works: Sequence[Callable[[], Any]], repeats: int, random: np.random.Generator
    ) -> FloatArray:
        """Return the seconds of each work in each round, [works, repeats].

        In a round each is called once, in an order that `random` draws.  Before a sample the
        last-level cache is filled with something else: a layer's KV is not in it either, when a
        step comes to that layer.  On CUDA a sample is the time between two events around one call,
        which is queued while the device is busy.
        """
        for work in (*works,) * 3:  # compiles, loads, allocates
            work()
        self.synchronize()
        taken = np.empty((len(works), repeats))
        for number in range(repeats):
            order, marks = random.permutation(len(works)), []
            for at in order:
                self._disturb()
                marks.append(self.mark())
                works[at]()
                marks.append(self.mark())
            # Every other lap is what lies between two samples.
            taken[order, number] = self.laps(marks)[::2]
        return taken

    def _disturb(self) -> None:
        """Fill the last-level cache, and keep a GPU busy for a while.

        By reading: what had been written would be written back within the sample, at its expense.
        """
        if self._on_cuda:
            self._flushed.amax()
            self._cuda._sleep(QUEUE_CYCLES)
        else:
            # By NumPy: torch's threads go on spinning, at the expense of the sample.
            self._flushed.numpy().max()

    @cached_property
    def _flushed(self) -> torch.Tensor:
        return torch.zeros(self.flush_bytes // 4, dtype=torch.int32, device=self.device)


def read_bytes_s(timer: Timer, size_bytes: int, repeats: int) -> dict[str, float]:
    """Return the bytes that reductions of torch read in a second, by their names.

    They write one number, so they go as fast as this device only reads; the fastest is a ceiling.
    """
    source = torch.zeros(size_bytes // 8, dtype=torch.int64, device=timer.device)
    readers: dict[str, Callable[[], Any]] = {
        "sum of float32": source.view(torch.float32).sum,
        "amax of float32": source.view(torch.float32).amax,
        "amax of int32": source.view(torch.int32).amax,
        "amax of int64": source.amax,
    }
    taken = timer.rounds(list(readers.values()), repeats, np.random.default_rng(0))
    return dict(zip(readers, (size_bytes / np.median(taken, axis=1)).tolist(), strict=True))


def product_flops_s(timer: Timer, size: int, dtype: torch.dtype, repeats: int) -> float:
    """Return the FLOP/s of a product of two random matrices of `size` x `size`."""
    a, b = torch.randn(2, size, size, device=timer.device).to(dtype)
    return 2 * size**3 / timer.measure(lambda: a @ b, repeats)["median_s"]
