"""The step `vmm`: CUDA's virtual-memory calls, one by one, by page size.

    reserve | create map set_access ... unmap release | free

Each call is timed by the host's clock.  Then the same pages are mapped in three ways: by a call a
page, with one call for access and one for unmapping, and as one piece of memory.  And a decode is
timed while a thread maps (`mapping`).  Pages are created, mapped and unmapped in rounds of as
many as memory allows; before unmapping the device is waited for, outside the times, as a backing
does.  Reserving and freeing are timed on ranges of one page and, once a round, of all its pages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import perf_counter
from typing import Any

import numpy as np
import torch

from harness.measure.job import Job, Unmeasurable
from harness.measure.steps.mapping import while_mapping
from harness.measure.timing import MIB, median_interval, spread
from kernels.memory.virtual_cuda import find_bindings, page_access, page_properties, probe_vmm

#: a page is this many times the least that the driver grants
MULTIPLES = (1, 2, 4, 16, 64)
#: smaller pages, asked for so that the driver's own answer is on record
SMALLER = (64 * 1024, 128 * 1024, 256 * 1024)
SAMPLES = 256
#: physical memory held at once, at most
HELD_BYTES = 4096 * MIB
#: pages that one call serves, and samples of each way to map them
SPANS, SPAN_SAMPLES = (4, 16, 64), 32
#: how so many pages are mapped
WAYS = ("a call a page", "access and unmap in one call", "one piece of memory")
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
        held.callback(self.unmap, address, size_bytes)

    def set_access(self, address: int, size_bytes: int) -> None:
        self._call("set_access", "cuMemSetAccess", address, size_bytes, self._access, 1)

    def unmap(self, address: int, size_bytes: int) -> None:
        self._call("unmap", "cuMemUnmap", address, size_bytes)

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
    """Fill `results`: granularities, sizes refused, and a row for each page size and call.

    On a CPU only the decode beside a thread that maps is measured.
    """
    support = probe_vmm()
    if job.device.type != "cuda":
        job.results["while_mapping"] = while_mapping(job)
        raise Unmeasurable("but for decode while mapping: CUDA's calls need a CUDA device")
    if not support.ok:
        raise Unmeasurable(support.reason)
    # The context of the device that torch uses becomes this thread's.
    torch.zeros(1, device=job.device)
    torch.cuda.synchronize(job.device)
    time_calls(job, find_bindings(), lambda: torch.cuda.synchronize(job.device))
    if job.room("decode while mapping", 3.0):
        job.results["while_mapping"] = while_mapping(job)


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
    results["spans"] = spans = []
    for pages in SPANS:
        if job.room(f"{pages} pages in one call", 0.5):
            driver = TimedDriver(cu, index)
            with suppress(DriverError):
                spans += _span(driver, least, pages, min(samples, SPAN_SAMPLES), fence)
            if driver.failure:
                refused.append({"page_bytes": pages * least, "reason": driver.failure})
            job.save()


def _span(
    driver: TimedDriver, size_bytes: int, pages: int, samples: int, fence: Callable[[], None]
) -> list[dict[str, Any]]:
    """Map, access and unmap `pages` pages in each of `WAYS`, in turns; return a row for each."""
    random, taken = np.random.default_rng(0), np.empty((len(WAYS), samples, 3))
    with ExitStack() as held:
        base = driver.reserve(pages * size_bytes, held, "_all")
        single = [driver.create(size_bytes, held) for _ in range(pages)]
        piece = [driver.create(pages * size_bytes, held)]
        for sample in range(samples):
            for way in random.permutation(len(WAYS)):
                handles = piece if way == 2 else single
                step = pages * size_bytes // len(handles)
                taken[way, sample] = _map_span(driver, base, step, handles, way > 0, fence)
    total = taken.sum(2)
    rows = []
    for way, name in enumerate(WAYS):
        ratio, low, high = median_interval(total[way] / total[0])
        parts = zip(("map_s", "set_access_s", "unmap_s"), np.median(taken[way], 0), strict=True)
        rows.append(
            {"page_bytes": size_bytes, "pages": pages, "way": name, "samples": samples}
            | {part: float(seconds) for part, seconds in parts}
            | {"ratio": ratio, "ratio_low": low, "ratio_high": high}
        )
    return rows


def _map_span(
    driver: TimedDriver,
    base: int,
    size_bytes: int,
    handles: list[Any],
    at_once: bool,
    fence: Callable[[], None],
) -> tuple[float, ...]:
    """Map pages side by side and unmap them; return the seconds of map, set_access and unmap."""
    each = [(base + at * size_bytes, size_bytes) for at in range(len(handles))]
    some = [(base, size_bytes * len(handles))] if at_once else each
    marks = [perf_counter()]
    with ExitStack() as held:
        for (address, size), handle in zip(each, handles, strict=True):
            driver.map(address, size, handle, held)
        marks.append(perf_counter())
        for address, size in some:
            driver.set_access(address, size)
        marks.append(perf_counter())
        held.pop_all()  # from here on they are unmapped by what is timed
    fence()
    marks.append(perf_counter())
    for address, size in some:
        driver.unmap(address, size)
    ends = perf_counter()
    return marks[1] - marks[0], marks[2] - marks[1], ends - marks[3]


def _rounds(driver: TimedDriver, size_bytes: int, samples: int, fence: Callable[[], None]) -> None:
    """Go through `samples` pages of `size_bytes`, in rounds of as many as may be held."""
    pages = max(1, min(samples, HELD_BYTES // size_bytes))
    for _ in range(-(-samples // pages)):
        with ExitStack() as held:
            base = driver.reserve(pages * size_bytes, held, "_all")
            handles = [driver.create(size_bytes, held) for _ in range(pages)]
            for page, handle in enumerate(handles):
                driver.map(base + page * size_bytes, size_bytes, handle, held)
                driver.set_access(base + page * size_bytes, size_bytes)
            fence()
    with ExitStack() as held:
        for _ in range(samples):
            driver.reserve(size_bytes, held)
