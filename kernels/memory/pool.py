"""The pool of paged and contiguous policies: allocated whole, copied within, never mapped.

Paged: K and V of a layer are (num_pages, page_tokens, kv_heads, head_dim), the shape that
FlashAttention, FlashInfer and torch's variable-length attention take.  Contiguous: (slots,
kv_heads, head_dim).
"""

from __future__ import annotations

import math
import mmap

import torch

from allocators.base import Geometry, Grant
from kernels.cache import copy_slots
from kernels.memory import os_memory
from kernels.memory.base import Backing, BackingError, OutOfMemory
from kernels.memory.tensors import wrap


class Piece:
    """`count` numbers of memory that are there from the start: `numbers`, flat."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size_bytes = count * dtype.itemsize
        self._address = 0
        if device.type == "cpu":
            # Populated at once, as a server does: a page that cannot be had is found out now.
            flags = os_memory.ANONYMOUS | mmap.MAP_POPULATE
            self._address = os_memory.map_memory(self.size_bytes, os_memory.READ_WRITE, flags)
            self.numbers = wrap(self._address, self.size_bytes, dtype)
            return
        try:
            self.numbers = torch.empty(count, dtype=dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{self.size_bytes} bytes of KV: {error}") from error

    def resident_bytes(self) -> int:
        """What mincore counts, in whole pages of the operating system; on CUDA, the storage."""
        if not self.size_bytes:
            return 0
        if self._address:
            return os_memory.core_bytes(self._address, self.size_bytes)
        return self.numbers.untyped_storage().nbytes()

    def close(self) -> None:
        """Give it back; may be called again."""
        if not self.size_bytes:
            return
        on_cuda = self.numbers.device.type == "cuda"
        del self.numbers
        if self._address:
            os_memory.unmap_memory(self._address, self.size_bytes)
        elif on_cuda:
            # Else torch keeps it, and the driver has none for the virtual backing that comes next.
            torch.cuda.empty_cache()
        self.size_bytes = 0


class Pool(Backing):
    """Memory that is one `Piece`; classes derived from it make that."""

    _piece: Piece

    @property
    def numbers(self) -> torch.Tensor:
        """All of the pool, flat."""
        return self._piece.numbers

    @property
    def committed_bytes(self) -> int:
        return self._piece.size_bytes

    def resident_bytes(self) -> int:
        return self._piece.resident_bytes()

    def map(self, grant: Grant) -> None:
        if len(grant.maps) or len(grant.unmaps):
            raise BackingError("a pool cannot map pages: the grant is for a virtual backing")

    def close(self) -> None:
        self.closed = True
        self._piece.close()


class PoolMemory(Pool):
    """All of `geometry.capacity_tokens` in whole pages, or in slots if not `paged`."""

    def __init__(
        self, geometry: Geometry, dtype: torch.dtype, device: torch.device, *, paged: bool
    ) -> None:
        super().__init__(geometry, dtype, device)
        page = geometry.page_tokens
        slots = (geometry.capacity_tokens // page, page) if paged else (geometry.capacity_tokens,)
        shape = (2 * geometry.layers, *slots, geometry.kv_heads, geometry.head_dim)
        self._piece = Piece(math.prod(shape), dtype, device)
        self._all = self._piece.numbers.view(shape)

    # -- views -------------------------------------------------------------------------------
    def keys(self, layer: int) -> torch.Tensor:
        return self._all[2 * layer]

    def values(self, layer: int) -> torch.Tensor:
        return self._all[2 * layer + 1]

    # -- grants ------------------------------------------------------------------------------
    def copy(self, grant: Grant) -> None:
        if len(grant.copies):
            copy_slots(self._all.unbind(0), grant.copies, backend=self.mover)

    # -- end ---------------------------------------------------------------------------------
    def close(self) -> None:
        if not self.closed:
            del self._all
        super().close()
