"""What every backing can do: hold the KV of all layers and execute grants on it."""

from __future__ import annotations

import abc
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from allocators.base import Geometry, Grant, IntArray
from kernels.cache import load
from kernels.registry import HEAD_DIMS, probe


class BackingError(Exception):
    """Memory could not do what a grant says; the backing is to be closed."""


class OutOfMemory(BackingError, MemoryError):
    """The machine has not enough memory for this."""


class Backing(abc.ABC):
    """KV of `geometry.layers` layers on `device`; a context manager, `close` is idempotent.

    The tensors of `keys` and `values` are views of memory that `close` gives back: reading them
    afterwards crashes the process or returns what others have written.
    """

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> None:
        if dtype.itemsize != geometry.dtype_bytes:
            raise ValueError(
                f"{dtype} has {dtype.itemsize} bytes, the geometry {geometry.dtype_bytes}"
            )
        if geometry.ranks != 1:
            raise ValueError(f"real memory is that of one rank, not of {geometry.ranks}")
        self.geometry, self.dtype, self.device = geometry, dtype, device
        self.closed = False
        #: seconds spent in maps and unmaps so far, those in the background included
        self.mapping_s = 0.0

    # -- views -------------------------------------------------------------------------------
    @abc.abstractmethod
    def keys(self, layer: int) -> torch.Tensor:
        """Return the key cache of a layer, addressed by the allocator's layout.

        [pages, page_tokens, kv_heads, head_dim] or [slots, kv_heads, head_dim], not a copy.
        """

    @abc.abstractmethod
    def values(self, layer: int) -> torch.Tensor:
        """Return the value cache of a layer; as `keys`."""

    @property
    @abc.abstractmethod
    def committed_bytes(self) -> int:
        """Bytes this backing has told the system to hold."""

    @abc.abstractmethod
    def resident_bytes(self) -> int:
        """Bytes the operating system or the device says are held for it (read back, not kept)."""

    def rebase(self) -> None:  # noqa: B027 - most count what is theirs alone
        """Count `resident_bytes` from here on: what libraries have taken by now is not ours."""

    # -- grants ------------------------------------------------------------------------------
    def apply(self, grant: Grant) -> None:
        """Execute a grant: unmaps, maps, copies."""
        self.map(grant)
        self.copy(grant)

    @abc.abstractmethod
    def map(self, grant: Grant) -> None:
        """Execute unmaps, then maps.

        For a grant of `admit`: call this, compute the prompt, then call `copy`.  Raises
        `BackingError` if the grant contradicts what is mapped, `OutOfMemory`.
        """

    def map_beside(self, grant: Grant) -> None:
        """Begin unmaps, then maps, in a thread of its own while a step computes.

        What it unmaps is not read by that step, and what it maps is used after `wait` only.
        """
        self.map(grant)

    def wait(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Wait for the end of `map_beside`; an error that it met is raised here."""

    @abc.abstractmethod
    def copy(self, grant: Grant) -> None:
        """Execute the copies in every layer; all sources are read before any write."""

    # -- swapping ----------------------------------------------------------------------------
    def located(self, slots: IntArray) -> IntArray:
        """Return where the caches show these physical slots, as a layout would address them."""
        return slots

    def save(self, slots: IntArray, host: torch.Tensor, at: IntArray) -> None:
        """Copy layout slots to slots `at` of host memory, [2 x layers, slots, kv_heads, head_dim].

        Each number is gathered on the device and sent once.  The host has it when this returns.
        """
        order, runs = _runs(at)
        read = torch.as_tensor(slots[order], dtype=torch.int64, device=self.device)
        for saved, cache in zip(host, self._caches(), strict=True):
            found = load(cache, read)
            for some, to in runs:
                saved[to].copy_(found[some], non_blocking=True)
        if self.device.type == "cuda":
            # What was saved may be unmapped in another thread as soon as this returns.
            torch.cuda.current_stream(self.device).synchronize()

    def restore(self, slots: IntArray, host: torch.Tensor, at: IntArray) -> None:
        """Write slots `at` of such host memory to layout slots, in order."""
        order, runs = _runs(at)
        write = torch.as_tensor(slots[order], dtype=torch.int64, device=self.device)
        for cache, saved in zip(self._caches(), host, strict=True):
            parts = [saved[to].to(self.device, non_blocking=True) for _, to in runs]
            page = cache.shape[1]
            index = (write,) if cache.dim() == 3 else (write // page, write % page)
            cache[index] = parts[0] if len(parts) == 1 else torch.cat(parts)

    @cached_property
    def mover(self) -> str:
        """The back end that copies slots: Triton's kernel where it can run, else torch."""
        # It moves heads of any size.
        found = probe("triton", self.device.type, str(self.dtype), HEAD_DIMS[0], None)
        return "triton" if found.ok else "reference"

    def _caches(self) -> list[torch.Tensor]:
        return [
            cache
            for layer in range(self.geometry.layers)
            for cache in (self.keys(layer), self.values(layer))
        ]

    # -- end ---------------------------------------------------------------------------------
    @abc.abstractmethod
    def close(self) -> None:
        """Unmap and free everything; may be called again."""

    def __enter__(self) -> Backing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _runs(at: IntArray) -> tuple[IntArray, list[tuple[slice, slice]]]:
    """Order slots; return the order, and of each run in it where it is and what it is."""
    order = np.argsort(at, kind="stable")
    slots = at[order]
    cuts = np.flatnonzero(np.diff(slots) != 1) + 1
    edges = np.concatenate([[0], cuts, [len(slots)]]).tolist()
    return order, [
        (slice(a, b), slice(int(slots[a]), int(slots[a]) + b - a)) for a, b in pairwise(edges)
    ]
