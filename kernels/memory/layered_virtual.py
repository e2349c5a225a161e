"""Virtual tensors of each layer group, whose page-groups grants map and unmap one by one.

The memory of a layer group is a `VirtualMemory` of its own.  What is held is what is mapped, so a
page-group that one layer group gives back is free for all others without moving.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import torch

from allocators.base import Grant, IntArray, Layout, Unsupported
from allocators.layered.base import LayeredAllocator
from allocators.layered.virtual import LayeredVirtual
from kernels.cache import load, store
from kernels.memory.layered import LayeredBacking
from kernels.memory.virtual import Calls, VirtualMemory
from kernels.memory.virtual_shape import VirtualShape

#: makes the memory of one layer group
Make = Callable[[VirtualShape], VirtualMemory]


class LayeredVirtualMemory(LayeredBacking):
    """Executes the maps, unmaps and copies of a policy that maps."""

    def __init__(
        self,
        allocator: LayeredAllocator,
        dtype: torch.dtype,
        device: torch.device,
        make: Make,
        *,
        background: bool = True,
    ) -> None:
        """`make` returns memory without a thread; one thread, with `background`, is for all."""
        super().__init__(allocator.geometry, dtype, device)
        self.members: list[VirtualMemory] = []
        self._thread = ThreadPoolExecutor(1, "map-beside") if background else None
        self._pending: Future[None] | None = None
        try:
            for shape in virtual_shapes(allocator):
                self.members.append(make(shape))
        except BaseException:
            self.close()
            raise

    # -- views -------------------------------------------------------------------------------
    def keys(self, layer: int) -> torch.Tensor:
        index, place = self.places[layer]
        return self.members[index].keys(place)

    def values(self, layer: int) -> torch.Tensor:
        index, place = self.places[layer]
        return self.members[index].values(place)

    def addressed(self, layout: Layout, layer_group: int) -> Layout:
        return layout

    # -- slots -------------------------------------------------------------------------------
    def _caches(self, layer_group: int = 0) -> list[torch.Tensor]:
        memory = self.members[layer_group]
        return [
            cache
            for layer in range(memory.shape.layers)
            for cache in (memory.keys(layer), memory.values(layer))
        ]

    def read(self, layer_group: int, slots: IntArray) -> torch.Tensor:
        at = self.members[layer_group].located(slots)
        return torch.stack([load(cache, at).flatten(1) for cache in self._caches(layer_group)], 1)

    def write(self, layer_group: int, slots: IntArray, numbers: torch.Tensor) -> None:
        memory, g = self.members[layer_group], self.geometry
        at = memory.located(slots)
        for layer in range(memory.shape.layers):
            k, v = numbers[:, 2 * layer : 2 * layer + 2].unflatten(2, (g.kv_heads, -1)).unbind(1)
            store(k, v, memory.keys(layer), memory.values(layer), at)

    # -- grants ------------------------------------------------------------------------------
    def map(self, grant: Grant) -> None:
        self.wait()
        if len(grant.unmaps):
            self.members[0].driver.fence()
        self._execute(self._noted(grant))

    def map_beside(self, grant: Grant) -> None:
        if self._thread is None:
            self.map(grant)
        elif not grant.is_empty:
            self.wait()
            self._pending = self._thread.submit(self._execute, self._noted(grant))

    def wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _noted(self, grant: Grant) -> list[tuple[VirtualMemory, Calls]]:
        """Keep in mind what each layer group maps and unmaps; return the driver's calls for it."""
        found = []
        for index, memory in enumerate(self.members):
            maps, unmaps = (
                of[of[:, 3] == index, :3] if len(of) else of for of in (grant.maps, grant.unmaps)
            )
            if len(maps) or len(unmaps):
                found.append((memory, memory.note(Grant(maps=maps, unmaps=unmaps))))
        return found

    def _execute(self, noted: list[tuple[VirtualMemory, Calls]]) -> None:
        """Let all layer groups give back before any of them takes: no more is held than told."""
        began_s = time.perf_counter()
        for memory, calls in noted:
            memory.execute(calls._replace(maps=[]))
        for memory, calls in noted:
            memory.execute(Calls([], [], calls.maps))
        # Alone with the count: the next grant waits for this one.
        self.mapping_s += time.perf_counter() - began_s

    # -- what is held ------------------------------------------------------------------------
    @property
    def committed_bytes(self) -> int:
        return sum(memory.committed_bytes for memory in self.members)

    def resident_bytes(self) -> int:
        self.wait()
        if self.closed:
            return 0
        return sum(memory.driver.held_bytes() for memory in self._counting())

    def rebase(self) -> None:
        self.wait()
        for memory in self._counting():
            memory.driver.rebase(self.committed_bytes)

    def _counting(self) -> list[VirtualMemory]:
        """Return the members that are asked what is held.

        A GPU says what is free of all its memory, so one speaks for all: the first, which began to
        count before any other had taken something.
        """
        return self.members[:1] if self.device.type == "cuda" else self.members

    def close(self) -> None:
        self.closed = True
        if self._thread is not None:
            # What the thread met no longer matters; it must only be over before memory goes.
            self._thread.shutdown(wait=True, cancel_futures=True)
        with ExitStack() as each:  # closes all, whatever one of them raises
            for memory in self.members:
                each.callback(memory.close)


def virtual_shapes(allocator: LayeredAllocator) -> list[VirtualShape]:
    """Return the shape of each layer group's tensors."""
    if not isinstance(allocator, LayeredVirtual):
        raise Unsupported(f"{type(allocator).__name__}: no real memory for maps of layer groups")
    g, shapes = allocator.geometry, []
    for index, group in enumerate(g.layer_groups):
        tokens, width = allocator.layer_pages(index)
        shape = VirtualShape(
            num_ranges=g.max_seqs,
            pages_per_range=width,
            range_tokens=width * tokens,
            num_pages=allocator.driver.num_pages,
            page_bytes=int(allocator.driver.bytes_of[index]) // g.ranks,
            page_tokens=tokens,
            layers=group.layers,
            kv_heads=g.kv_heads,
            head_dim=g.head_dim,
            dtype_bytes=g.dtype_bytes,
            sliced=False,
        )
        sliced = int(allocator.driver.of_group[index]) != shape.num_tensors
        shapes.append(replace(shape, sliced=sliced))
    return shapes
