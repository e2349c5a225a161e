"""The step `vmm`: CUDA's virtual-memory calls, one by one, by page size.

    reserve | create map set_access ... unmap release | free

Each call is timed by the host's clock.  Pages are created, mapped and unmapped in rounds of as
many as memory allows; before unmapping the device is waited for, outside the times, as a backing
does.  Reserving and freeing are timed on ranges of one page and, once a round, of all its pages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import perf_counter
from typing import Any

import torch

from harness.measure.job import Job, Unmeasurable
from harness.measure.timing import MIB, spread
from kernels.memory.virtual_cuda import find_bindings, page_access, page_properties, probe_vmm

#: a page is this many times the least that the driver grants
MULTIPLES = (1, 2, 4, 16, 64)
#: smaller pages, asked for so that the driver's own answer is on record
SMALLER = (64 * 1024, 128 * 1024, 256 * 1024)
SAMPLES = 256
#: physical memory held at once, at most
HELD_BYTES = 4096 * MIB
CALLS = (
    *("reserve", "create", "map", "set_access", "unmap", "release", "free"),
    *("reserve_all", "free_all"),
)


class DriverError(Exception):
    """A call of the driver that did not succeed."""


class TimedDriver:
    """Calls of the driver whose times are in `taken_s`; `failure` says which was the first to fail.

    What a call obtains is given back, by calls that are timed too, when the stack `held` ends.
    """

    def __init__(self, cu: Any, index: int) -> None:
        self._cu = cu
        self._page, self._access = page_properties(cu, index), [page_access(cu, index)]
        self.taken_s: dict[str, list[float]] = defaultdict(list)
        self.failure = ""

    def granularity_bytes(self, name: str) -> int | None:
        """Return the driver's granularity, "MINIMUM" or "RECOMMENDED"."""
        flags = self._cu.CUmemAllocationGranularity_flags
        flag = getattr(flags, f"CU_MEM_ALLOC_GRANULARITY_{name}", None)
        if flag is None:
            return None
        return int(self._call("granularity", "cuMemGetAllocationGranularity", self._page, flag))

    def reserve(self, size_bytes: int, held: ExitStack, suffix: str = "") -> int:
        address = int(self._call(f"reserve{suffix}", "cuMemAddressReserve", size_bytes, 0, 0, 0))
        held.callback(self._call, f"free{suffix}", "cuMemAddressFree", address, size_bytes)
        return address

    def create(self, size_bytes: int, held: ExitStack) -> Any:
        handle = self._call("create", "cuMemCreate", size_bytes, self._page, 0)
        held.callback(self._call, "release", "cuMemRelease", handle)
        return handle

    def map(self, address: int, size_bytes: int, handle: Any, held: ExitStack) -> None:
        self._call("map", "cuMemMap", address, size_bytes, 0, handle, 0)
        held.callback(self._call, "unmap", "cuMemUnmap", address, size_bytes)
        self._call("set_access", "cuMemSetAccess", address, size_bytes, self._access, 1)

    def _call(self, what: str, name: str, *arguments: Any) -> Any:
        call = getattr(self._cu, name)
        began_s = perf_counter()
        status, *rest = call(*arguments)
        seconds = perf_counter() - began_s
        if int(status) != int(self._cu.CUresult.CUDA_SUCCESS):
            answer = f"{name}: {getattr(status, 'name', status)}"
            self.failure = self.failure or answer
            raise DriverError(answer)
        self.taken_s[what].append(seconds)
        return rest[0] if rest else None


def run(job: Job) -> None:
    """Fill `results`: granularities, sizes refused, and a row for each page size and call."""
    support = probe_vmm()
    if job.device.type != "cuda":
        raise Unmeasurable("CUDA's virtual memory needs a CUDA device")
    if not support.ok:
        raise Unmeasurable(support.reason)
    # The context of the device that torch uses becomes this thread's.
    torch.zeros(1, device=job.device)
    torch.cuda.synchronize(job.device)
    time_calls(job, find_bindings(), lambda: torch.cuda.synchronize(job.device))


def time_calls(job: Job, cu: Any, fence: Callable[[], None], samples: int = SAMPLES) -> None:
    """Take the times through the bindings `cu`; `fence` waits for the device."""
    index, results = job.device.index or 0, job.results
    driver = TimedDriver(cu, index)
    least = driver.granularity_bytes("MINIMUM")
    assert least is not None
    recommended = driver.granularity_bytes("RECOMMENDED")
    results["granularity_bytes"] = {"minimum": least, "recommended": recommended}
    results["refused"] = refused = []
    for size_bytes in SMALLER:
        if size_bytes % least:
            driver = TimedDriver(cu, index)
            with suppress(DriverError), ExitStack() as held:
                driver.create(size_bytes, held)
            refused.append({"page_bytes": size_bytes, "reason": driver.failure})
    results["rows"] = rows = []
    for multiple in MULTIPLES:
        size_bytes = multiple * least
        if not job.room(f"pages of {size_bytes} bytes", 0.5):
            continue
        driver = TimedDriver(cu, index)
        with suppress(DriverError):
            _rounds(driver, size_bytes, samples, fence)
        if driver.failure:
            refused.append({"page_bytes": size_bytes, "reason": driver.failure})
        rows += [
            {"page_bytes": size_bytes, "call": name, **spread(driver.taken_s[name])}
            for name in CALLS
            if name in driver.taken_s
        ]
        job.save()


def _rounds(driver: TimedDriver, size_bytes: int, samples: int, fence: Callable[[], None]) -> None:
    """Go through `samples` pages of `size_bytes`, in rounds of as many as may be held."""
    pages = max(1, min(samples, HELD_BYTES // size_bytes))
    for _ in range(-(-samples // pages)):
        with ExitStack() as held:
            base = driver.reserve(pages * size_bytes, held, "_all")
            handles = [driver.create(size_bytes, held) for _ in range(pages)]
            for page, handle in enumerate(handles):
                driver.map(base + page * size_bytes, size_bytes, handle, held)
            fence()
    with ExitStack() as held:
        for _ in range(samples):
            driver.reserve(size_bytes, held)
