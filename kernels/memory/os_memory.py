"""The few calls of the C library that map memory, and the kernel's own account of it (Linux)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable

from kernels.memory.base import BackingError, OutOfMemory

OS_PAGE_BYTES = mmap.PAGESIZE
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
NO_ACCESS = 0
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2
FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
]  # fmt: skip
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def map_memory(
    size_bytes: int,
    protection: int,
    flags: int,
    *,
    at: int | None = None,
    file: int = -1,
    offset: int = 0,
) -> int:
    """mmap(2); return the address.  Raises `OutOfMemory` or `BackingError`."""
    address = _libc.mmap(at, size_bytes, protection, flags, file, offset)
    if address == FAILED:
        _fail("mmap", size_bytes)
    return address


def unmap_memory(address: int, size_bytes: int) -> None:
    if _libc.munmap(address, size_bytes):
        _fail("munmap", size_bytes)


def advise(address: int, size_bytes: int, advice: int) -> None:
    if _libc.madvise(address, size_bytes, advice):
        _fail("madvise", size_bytes)


def allocate(file: int, offset: int, size_bytes: int) -> None:
    """Commit memory to a part of a memfd."""
    if _libc.fallocate(file, 0, offset, size_bytes):
        _fail("fallocate", size_bytes)


def punch(file: int, offset: int, size_bytes: int) -> None:
    """Give the memory of a part of a memfd back; it reads as zeros from now on."""
    if _libc.fallocate(file, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, offset, size_bytes):
        _fail("fallocate(PUNCH_HOLE)", size_bytes)


def file_bytes(file: int) -> int:
    """Bytes the kernel holds for a memfd (its allocated blocks)."""
    return os.fstat(file).st_blocks * 512


def core_bytes(address: int, size_bytes: int) -> int:
    """Bytes of this area that mincore(2) says are in memory."""
    pages = -(-size_bytes // OS_PAGE_BYTES)
    vector = (ctypes.c_ubyte * pages)()
    if _libc.mincore(address, size_bytes, vector):
        _fail("mincore", size_bytes)
    return sum(byte & 1 for byte in bytes(vector)) * OS_PAGE_BYTES


def resident_by_smaps(areas: Iterable[tuple[int, int]]) -> int:
    """Sum of `Rss` in /proc/self/smaps over mappings within (address, bytes) areas, in bytes."""
    areas = list(areas)
    total, inside = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if line[0] in "0123456789abcdef":
                start, end = (int(x, 16) for x in line.split(maxsplit=1)[0].split("-"))
                inside = any(start < a + n and end > a for a, n in areas)
            elif inside and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def _fail(call: str, size_bytes: int) -> None:
    code = ctypes.get_errno()
    text = f"{call} of {size_bytes} bytes failed: {os.strerror(code)}"
    if code in (errno.ENOMEM, errno.ENOSPC):
        hint = " (or more areas than vm.max_map_count allows)" if call == "mmap" else ""
        raise OutOfMemory(text + hint)
    raise BackingError(text)
