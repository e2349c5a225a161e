"""The step `vmm`: CUDA's virtual-memory calls, one by one, by page size.

    reserve | create map set_access ... unmap release | free

Each call is timed by the host's clock.  Pages are created, mapped and unmapped in rounds of as
many as memory allows; before unmapping the device is waited for, outside the times, as a backing
does.  Reserving and freeing are timed on ranges of one page and, once a round, of all its pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from harness.measure.job import Job, Unmeasurable
from harness.measure.timing import MIB, spread
from kernels.memory.virtual_cuda import find_bindings, probe_vmm

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


@dataclass
class DriverCalls:
    """The driver's calls, each timed; what is held is noted, so that `close` gives it back."""

    cu: Any
    index: int
    taken: dict[str, list[float]] = field(default_factory=dict)
    ranges: dict[int, int] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)
    mapped: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cu = self.cu
        self.prop = cu.CUmemAllocationProp()
        self.prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        self.access = cu.CUmemAccessDesc()
        for location in (self.prop.location, self.access.location):
            location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
            location.id = self.index
        self.access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE

    def granularity(self, name: str) -> int | None:
        """Return the driver's granularity, "MINIMUM" or "RECOMMENDED"."""
        flags = self.cu.CUmemAllocationGranularity_flags
        flag = getattr(flags, f"CU_MEM_ALLOC_GRANULARITY_{name}", None)
        if flag is None:
            return None
        return int(self._call(None, "cuMemGetAllocationGranularity", self.prop, flag))

    def reserve(self, size_bytes: int, name: str = "reserve") -> int:
        address = int(self._call(name, "cuMemAddressReserve", size_bytes, 0, 0, 0))
        self.ranges[address] = size_bytes
        return address

    def create(self, size_bytes: int) -> Any:
        self.handles.append(self._call("create", "cuMemCreate", size_bytes, self.prop, 0))
        return self.handles[-1]

    def map(self, address: int, size_bytes: int, handle: Any) -> None:
        self._call("map", "cuMemMap", address, size_bytes, 0, handle, 0)
        self.mapped[address] = size_bytes
        self._call("set_access", "cuMemSetAccess", address, size_bytes, [self.access], 1)

    def unmap(self, address: int) -> None:
        self._call("unmap", "cuMemUnmap", address, self.mapped[address])
        del self.mapped[address]

    def release(self) -> None:
        self._call("release", "cuMemRelease", self.handles[-1])
        self.handles.pop()

    def free(self, address: int, name: str = "free") -> None:
        self._call(name, "cuMemAddressFree", address, self.ranges[address])
        del self.ranges[address]

    def close(self) -> None:
        """Give back what is held, in the order that the driver wants."""
        for address in list(self.mapped):
            self.unmap(address)
        while self.handles:
            self.release()
        for address in list(self.ranges):
            self.free(address)

    def _call(self, what: str | None, name: str, *arguments: Any) -> Any:
        call = getattr(self.cu, name)
        began_s = perf_counter()
        status, *rest = call(*arguments)
        seconds = perf_counter() - began_s
        if int(status) != int(self.cu.CUresult.CUDA_SUCCESS):
            raise DriverError(f"{name}: {getattr(status, 'name', status)}")
        if what is not None:
            self.taken.setdefault(what, []).append(seconds)
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
    probe = DriverCalls(cu, index)
    least = probe.granularity("MINIMUM")
    assert least is not None
    results["granularity_bytes"] = {
        "minimum": least,
        "recommended": probe.granularity("RECOMMENDED"),
    }
    results["refused"] = [
        {"page_bytes": size_bytes, "reason": _refusal(cu, index, size_bytes)}
        for size_bytes in SMALLER
        if size_bytes % least
    ]
    rows: list[dict[str, Any]] = []
    results["rows"] = rows
    for multiple in MULTIPLES:
        size_bytes = multiple * least
        if not job.room(f"pages of {size_bytes} bytes", 0.5):
            continue
        calls = DriverCalls(cu, index)
        try:
            _rounds(calls, size_bytes, samples, fence)
        except DriverError as error:
            results["refused"].append({"page_bytes": size_bytes, "reason": str(error)})
        finally:
            calls.close()
        rows.extend(
            {"page_bytes": size_bytes, "call": name, **spread(calls.taken[name])}
            for name in CALLS
            if name in calls.taken
        )
        job.save()


def _rounds(calls: DriverCalls, size_bytes: int, samples: int, fence: Callable[[], None]) -> None:
    """Go through `samples` pages of `size_bytes`, in rounds of as many as may be held."""
    pages = max(1, min(samples, HELD_BYTES // size_bytes))
    done = 0
    while done < samples:
        base = calls.reserve(pages * size_bytes, "reserve_all")
        places = [base + page * size_bytes for page in range(pages)]
        for handle, place in zip([calls.create(size_bytes) for _ in places], places, strict=True):
            calls.map(place, size_bytes, handle)
        fence()
        for place in places:
            calls.unmap(place)
        while calls.handles:
            calls.release()
        calls.free(base, "free_all")
        done += pages
    ranges = [calls.reserve(size_bytes) for _ in range(samples)]
    for address in ranges:
        calls.free(address)


def _refusal(cu: Any, index: int, size_bytes: int) -> str:
    """Return what the driver answers to a page smaller than it grants; empty: it took it."""
    calls = DriverCalls(cu, index)
    try:
        calls.create(size_bytes)
    except DriverError as error:
        return str(error)
    finally:
        calls.close()
    return ""
