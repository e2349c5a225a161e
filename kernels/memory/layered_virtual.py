"""Virtual tensors of each layer group, whose page-groups grants map and unmap one by one.

The memory of a layer group is a `VirtualMemory` of its own.  What is held is what is mapped, so a
page-group that one layer group gives back is free for all others without moving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from allocators.base import Grant, IntArray, Layout, Unsupported
from allocators.layered.base import LayeredAllocator
from allocators.layered.virtual import LayeredVirtual
from kernels.cache import load, store
from kernels.memory.layered import LayeredBacking
from kernels.memory.virtual import VirtualMemory
from kernels.memory.virtual_shape import VirtualShape

#: makes the memory of one layer group
Make = Callable[[VirtualShape], VirtualMemory]


class LayeredVirtualMemory(LayeredBacking):
    """Executes the maps, unmaps and copies of a policy that maps."""

    def __init__(
        self, allocator: LayeredAllocator, dtype: torch.dtype, device: torch.device, make: Make
    ) -> None:
        super().__init__(allocator.geometry, dtype, device)
        self.members: list[VirtualMemory] = []
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
        for memory, part in self._parts(grant):
            memory.map(part)
        self._count()

    def map_beside(self, grant: Grant) -> None:
        for memory, part in self._parts(grant):
            memory.map_beside(part)

    def wait(self) -> None:
        for memory in self.members:
            memory.wait()
        self._count()

    def _parts(self, grant: Grant) -> list[tuple[VirtualMemory, Grant]]:
        """Return what each layer group maps and unmaps, those that only unmap first."""
        parts = []
        for index, memory in enumerate(self.members):
            maps, unmaps = (
                of[of[:, 3] == index, :3] if len(of) else of for of in (grant.maps, grant.unmaps)
            )
            if len(maps) or len(unmaps):
                parts.append((memory, Grant(maps=maps, unmaps=unmaps)))
        return sorted(parts, key=lambda part: len(part[1].maps) > 0)

    def _count(self) -> None:
        self.mapping_s = sum(memory.mapping_s for memory in self.members)

    # -- what is held ------------------------------------------------------------------------
    @property
    def committed_bytes(self) -> int:
        return sum(memory.committed_bytes for memory in self.members)

    def resident_bytes(self) -> int:
        return sum(memory.resident_bytes() for memory in self.members)

    def rebase(self) -> None:
        for memory in self.members:
            memory.rebase()

    def close(self) -> None:
        self.closed = True
        for memory in self.members:
            memory.close()


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
