"""`mode=demand`: the operating system's own demand paging in place of explicit maps.

The tensors are ordinary memory that the kernel commits when a page of it is first touched and takes
back with MADV_DONTNEED.  Maps cost nothing and are not executed; what is held is what was touched,
in pages of the operating system, so never more than the allocator says is mapped.  A page cannot
appear at two places: an allocator that aliases is refused.
"""

from __future__ import annotations

import mmap

import torch

from allocators.base import Geometry, Unsupported
from kernels.memory import os_memory
from kernels.memory.tensors import wrap
from kernels.memory.virtual import Calls, VirtualMemory
from kernels.memory.virtual_shape import VirtualShape


class DemandDriver:
    """See `virtual.PageDriver`; `map` and `create` have nothing to do."""

    def __init__(self, shape: VirtualShape) -> None:
        self._shape = shape
        self._reserved: dict[int, int] = {}

    def reserve(self, size_bytes: int) -> int:
        flags = os_memory.ANONYMOUS | os_memory.MAP_NORESERVE
        address = os_memory.map_memory(
            size_bytes + os_memory.OS_PAGE_BYTES, os_memory.NO_ACCESS, flags
        )
        self._reserved[address] = size_bytes
        # The last page stays closed: without it the kernel would join neighbouring tensors into one
        # area, and account for them together.
        at_start = flags | os_memory.MAP_FIXED
        os_memory.map_memory(size_bytes, os_memory.READ_WRITE, at_start, at=address)
        # A huge page would commit 2 MiB on the first touch of 4 KiB.
        os_memory.advise(address, size_bytes, mmap.MADV_NOHUGEPAGE)
        return address

    def create(self, page: int) -> None:
        """First touch does it."""

    def destroy(self, page: int) -> None:
        """`unmap` has done it."""

    def map(self, address: int, page: int, index: int) -> None:
        """First touch does it."""

    def unmap(self, address: int) -> None:
        os_memory.advise(address, self._shape.page_bytes, mmap.MADV_DONTNEED)

    def rebase(self, own_bytes: int) -> None:
        """The tensors hold nothing but our pages."""

    def fence(self) -> None:
        """Kernels of the CPU have returned by now."""

    def wrap(self, address: int, size_bytes: int, dtype: torch.dtype) -> torch.Tensor:
        return wrap(address, size_bytes, dtype)

    def held_bytes(self) -> int:
        return os_memory.resident_by_smaps(self._reserved.items())

    def close(self) -> None:
        while self._reserved:
            address, size_bytes = self._reserved.popitem()
            os_memory.unmap_memory(address, size_bytes + os_memory.OS_PAGE_BYTES)


class DemandMemory(VirtualMemory):
    """A virtual backing on `DemandDriver`, on the CPU."""

    def __init__(
        self, shape: VirtualShape, geometry: Geometry, dtype: torch.dtype, device: torch.device
    ) -> None:
        if device.type != "cpu":
            raise Unsupported("demand paging is the operating system's: only on the CPU")
        driver = DemandDriver(shape)
        super().__init__(shape, geometry, dtype, device, driver, background=False)

    def execute(self, calls: Calls) -> None:
        for _, page in calls.maps:
            if self.page_map.places[page] > 1:
                raise Unsupported(
                    "demand paging cannot show one page at two places: use sharing=copy"
                )
        super().execute(calls)
