"""CUDA's virtual memory: reserved address ranges into which physical pages are mapped.

The driver's calls are those of the CUDA driver API, section "Virtual Memory Management":
cuMemAddressReserve, cuMemCreate, cuMemMap, cuMemSetAccess, cuMemUnmap, cuMemRelease and
cuMemAddressFree, through the `cuda-bindings` package.  Pages are multiples of what
cuMemGetAllocationGranularity says, 2 MiB on the GPUs we know of: vAttention's smaller pages need
its changed driver and are refused here with that reason.

What was proved without a GPU, and what has run on one: docs/gpu.md.
"""

from __future__ import annotations

import importlib
import threading
from types import ModuleType
from typing import Any

import torch

from allocators.base import Unsupported
from kernels.memory.base import BackingError, OutOfMemory
from kernels.memory.tensors import wrap
from kernels.memory.virtual_shape import VirtualShape
from kernels.support import YES, Support, no

#: where the bindings are, newest name first
MODULES = ("cuda.bindings.driver", "cuda.cuda")


def find_bindings() -> ModuleType | None:
    """Return the module of the driver API's bindings, or None if none is installed."""
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def probe_vmm() -> Support:
    """Say whether CUDA's virtual memory can be used here."""
    if find_bindings() is None:
        return no("cuda-bindings is not installed (pip install cuda-bindings)")
    if not torch.cuda.is_available():
        return no("torch sees no CUDA device")
    return YES


def page_properties(bindings: Any, index: int) -> Any:
    """Return what cuMemCreate is to make: pinned memory of the device of that index."""
    properties = bindings.CUmemAllocationProp()
    properties.type = bindings.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    _place(bindings, properties.location, index)
    return properties


def page_access(bindings: Any, index: int) -> Any:
    """Return what cuMemSetAccess is to grant: that device reads and writes."""
    access = bindings.CUmemAccessDesc()
    access.flags = bindings.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    _place(bindings, access.location, index)
    return access


def _place(bindings: Any, location: Any, index: int) -> None:
    location.type = bindings.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    location.id = index


class CudaDriver:
    """See `virtual.PageDriver`.  `bindings` and `torch_cuda` are given by tests.

    Whatever is held is noted right after the call that obtained it, so that `close` gives back
    exactly what there is, after an error too.
    """

    def __init__(
        self,
        shape: VirtualShape,
        device: torch.device,
        *,
        bindings: Any = None,
        torch_cuda: Any = None,
    ) -> None:
        if bindings is None:
            support = probe_vmm()
            if not support.ok:
                raise Unsupported(f"virtual memory on CUDA: {support.reason}")
            bindings = find_bindings()
        self._cu, self._torch = bindings, torch_cuda or torch.cuda
        self._shape = shape
        self._index = device.index or 0
        self._device = torch.device("cuda", self._index)
        self._reserved: dict[int, int] = {}
        self._handles: dict[int, list[Any]] = {}
        self._mapped: set[int] = set()
        self._threads = threading.local()
        self._lock = threading.Lock()
        self._context = self._gpu = None
        self._torch.init()
        self._prop = page_properties(bindings, self._index)
        self._access = page_access(bindings, self._index)
        self._call("cuInit", 0)
        self._gpu = self._call("cuDeviceGet", self._index)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._gpu)
        try:
            self._check_granularity()
            self._free_before = self._free_bytes()
        except BaseException:
            self.close()
            raise

    # -- memory ------------------------------------------------------------------------------
    def reserve(self, size_bytes: int) -> int:
        address = int(self._call("cuMemAddressReserve", size_bytes, 0, 0, 0))
        self._reserved[address] = size_bytes
        return address

    def create(self, page: int) -> None:
        handles = self._handles.setdefault(page, [])
        for _ in range(self._shape.num_tensors):
            handles.append(self._call("cuMemCreate", self._shape.page_bytes, self._prop, 0))

    def destroy(self, page: int) -> None:
        handles = self._handles[page]
        while handles:
            self._call("cuMemRelease", handles[-1])
            handles.pop()
        del self._handles[page]

    def map(self, address: int, page: int, index: int) -> None:
        size = self._shape.page_bytes
        self._call("cuMemMap", address, size, 0, self._handles[page][index], 0)
        with self._lock:
            self._mapped.add(address)
        self._call("cuMemSetAccess", address, size, [self._access], 1)

    def unmap(self, address: int) -> None:
        self._call("cuMemUnmap", address, self._shape.page_bytes)
        with self._lock:
            self._mapped.discard(address)

    def rebase(self, own_bytes: int) -> None:
        self._free_before = self._free_bytes() + own_bytes

    def fence(self) -> None:
        """Wait for the device: what is unmapped under a running kernel is a fault in it."""
        self._torch.synchronize(self._index)

    def wrap(self, address: int, size_bytes: int, dtype: torch.dtype) -> torch.Tensor:
        return wrap(address, size_bytes, dtype, self._device)

    def held_bytes(self) -> int:
        """How much less is free than before, apart from what torch's own allocator took since.

        Other processes on the device falsify it; what other drivers of ours hold is part of it.
        """
        return self._free_before - self._free_bytes()

    @property
    def handle_bytes(self) -> int:
        """Bytes of the handles held, by our own count."""
        return sum(map(len, self._handles.values())) * self._shape.page_bytes

    # -- end ---------------------------------------------------------------------------------
    def close(self) -> None:
        """Unmap, release and free what is held; go on after an error and raise the first."""
        errors: list[Exception] = []

        def attempt(name: str, *args: Any) -> None:
            try:
                self._call(name, *args)
            except Exception as error:
                errors.append(error)

        if self._mapped:
            try:
                self.fence()
            except Exception as error:
                errors.append(error)
        for address in sorted(self._mapped):
            attempt("cuMemUnmap", address, self._shape.page_bytes)
        self._mapped.clear()
        for handles in self._handles.values():
            for handle in handles:
                attempt("cuMemRelease", handle)
        self._handles.clear()
        while self._reserved:
            attempt("cuMemAddressFree", *self._reserved.popitem())
        context, self._context = self._context, None
        if context is not None:
            attempt("cuDevicePrimaryCtxRelease", self._gpu)
        if errors:
            raise BackingError(f"closing met {len(errors)} errors; the first: {errors[0]}")

    # -- calls -------------------------------------------------------------------------------
    def _call(self, name: str, *args: Any) -> Any:
        """Call the driver; return its result without the status, or raise what the status says."""
        if self._context is not None and not getattr(self._threads, "ready", False):
            # The thread beside a step has no current context of its own.
            self._threads.ready = True
            self._check("cuCtxSetCurrent", self._cu.cuCtxSetCurrent(self._context))
        return self._check(name, getattr(self._cu, name)(*args))

    def _check(self, name: str, answer: tuple[Any, ...]) -> Any:
        status, *rest = answer
        if int(status) == int(self._cu.CUresult.CUDA_SUCCESS):
            return rest[0] if len(rest) == 1 else tuple(rest) or None
        text = f"{name} failed: {getattr(status, 'name', status)}"
        if int(status) == int(self._cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY):
            raise OutOfMemory(text)
        raise BackingError(text)

    def _free_bytes(self) -> int:
        free, _ = self._call("cuMemGetInfo")
        return int(free) + int(self._torch.memory_reserved(self._index))

    def _check_granularity(self) -> None:
        flag = self._cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        least = int(self._call("cuMemGetAllocationGranularity", self._prop, flag))
        if self._shape.page_bytes % least:
            raise Unsupported(
                f"a page of {self._shape.page_bytes} bytes is not a multiple of the "
                f"{least} bytes that this device's driver maps"
            )
