"""Virtual memory of the operating system: a memfd whose pages are mapped at reserved addresses.

Physical memory is a memfd in which page-group p is one piece, its page of each tensor side by side.
Aliasing is real: mapping a page-group at two places shows the same bytes at both.  What is held is
what the kernel says the memfd has allocated.
"""

from __future__ import annotations

import os

import torch

from allocators.base import Unsupported
from kernels.memory import os_memory
from kernels.memory.tensors import wrap
from kernels.memory.virtual_shape import VirtualShape

RESERVED = os_memory.ANONYMOUS | os_memory.MAP_NORESERVE
SHARED_FIXED = 0x01 | os_memory.MAP_FIXED


class CpuDriver:
    """See `virtual.PageDriver`."""

    def __init__(self, shape: VirtualShape, device: torch.device | None = None) -> None:
        if shape.page_bytes % os_memory.OS_PAGE_BYTES:
            raise Unsupported(
                f"a page of {shape.page_bytes} bytes is not a multiple of the system's "
                f"{os_memory.OS_PAGE_BYTES}"
            )
        self._shape = shape
        self._reserved: dict[int, int] = {}
        self.file = os.memfd_create("kv-harness", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.file, shape.num_pages * shape.page_group_bytes)
        except BaseException:
            self.close()
            raise

    def reserve(self, size_bytes: int) -> int:
        address = os_memory.map_memory(size_bytes, os_memory.NO_ACCESS, RESERVED)
        self._reserved[address] = size_bytes
        return address

    def create(self, page: int) -> None:
        size = self._shape.page_group_bytes
        os_memory.allocate(self.file, page * size, size)

    def destroy(self, page: int) -> None:
        size = self._shape.page_group_bytes
        os_memory.punch(self.file, page * size, size)

    def map(self, address: int, page: int, index: int) -> None:
        shape = self._shape
        os_memory.map_memory(
            shape.page_bytes,
            os_memory.READ_WRITE,
            SHARED_FIXED,
            at=address,
            file=self.file,
            offset=page * shape.page_group_bytes + index * shape.page_bytes,
        )

    def unmap(self, address: int) -> None:
        # Replaced, not removed: the address stays reserved and a stray access faults.
        flags = RESERVED | os_memory.MAP_FIXED
        os_memory.map_memory(self._shape.page_bytes, os_memory.NO_ACCESS, flags, at=address)

    def rebase(self, own_bytes: int) -> None:
        """The memfd holds nothing but our pages."""

    def fence(self) -> None:
        """Kernels of the CPU have returned by now."""

    def wrap(self, address: int, size_bytes: int, dtype: torch.dtype) -> torch.Tensor:
        return wrap(address, size_bytes, dtype)

    def held_bytes(self) -> int:
        return os_memory.file_bytes(self.file)

    def close(self) -> None:
        while self._reserved:
            os_memory.unmap_memory(*self._reserved.popitem())
        if self.file >= 0:
            file, self.file = self.file, -1
            os.close(file)
