"""Host memory for KV that leaves the device for a while: swapped sequences, offloaded prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from allocators.base import Grant, IntArray
from kernels.cache import expand
from kernels.memory.base import Backing, OutOfMemory
from kernels.memory.layered import LayeredBacking, by_layer_group


class HostSpace:
    """`geometry.host_tokens` slots, [2 x layers, slots, kv_heads, head_dim]; pinned beside a GPU.

    Taken when the first swap asks for it: most runs never do.
    """

    def __init__(self, memory: Backing) -> None:
        self._memory = memory
        self._held: torch.Tensor | None = None

    def save(self, grant: Grant) -> None:
        """Execute the swaps out; comes before the grant's unmaps."""
        if len(grant.swaps_out):
            source, target = expand(grant.swaps_out)
            self._memory.save(self._memory.located(source), self._space(), target)

    def fetch(self, grant: Grant) -> None:
        """Execute the swaps in; comes after the grant's maps."""
        if len(grant.swaps_in):
            target, source = expand(grant.swaps_in)
            self._memory.restore(self._memory.located(target), self._space(), source)

    def _space(self) -> torch.Tensor:
        if self._held is None:
            g, memory = self._memory.geometry, self._memory
            shape = (2 * g.layers, g.host_tokens, g.kv_heads, g.head_dim)
            pinned = memory.device.type == "cuda"
            self._held = _room(g.host_tokens, shape, memory.dtype, pinned)
        return self._held


def _room(slots: int, shape: Sequence[int], dtype: torch.dtype, pinned: bool) -> torch.Tensor:
    try:
        return torch.empty(shape, dtype=dtype, pin_memory=pinned)
    except RuntimeError as error:  # what torch raises where the CPU has no memory left
        raise OutOfMemory(f"{slots} slots of host memory: {error}") from error


@dataclass(slots=True)
class _Store:
    """Slots of one layer group; `row_of` says where a host slot's numbers are."""

    numbers: torch.Tensor | None = None
    row_of: dict[int, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)

    def put(self, slots: IntArray, numbers: torch.Tensor) -> None:
        """Keep `numbers` [slots, ...]; they have none of these slots yet."""
        held = 0 if self.numbers is None else len(self.numbers)
        if len(slots) > len(self.free):
            more = max(len(slots), held)
            shape = (held + more, *numbers.shape[1:])
            room = _room(held + more, shape, numbers.dtype, pinned=False)
            if self.numbers is not None:
                room[:held] = self.numbers
            self.numbers, held = room, held + more
            self.free = [*range(held - 1, held - more - 1, -1), *self.free]
        rows = [self.free.pop() for _ in range(len(slots))]
        self.row_of.update(zip(slots.tolist(), rows, strict=True))
        self.numbers[rows] = numbers

    def take(self, slots: IntArray) -> torch.Tensor:
        """Return what these slots have; they are free from now on."""
        rows = [self.row_of.pop(slot) for slot in slots.tolist()]
        self.free += rows
        return self.numbers[rows]


class LayeredHost:
    """As `HostSpace` for a model with layer groups: as large as what was ever away at once.

    A sequence comes back whole, and so what is fetched is not kept.
    """

    def __init__(self, memory: LayeredBacking) -> None:
        self._memory = memory
        self._stores = [_Store() for _ in memory.geometry.layer_groups]

    def save(self, grant: Grant) -> None:
        """Execute the swaps out; comes before the grant's unmaps."""
        for index, source, target in by_layer_group(grant.swaps_out):
            self._stores[index].put(target, self._memory.read(index, source).cpu())

    def fetch(self, grant: Grant) -> None:
        """Execute the swaps in; comes after the grant's maps."""
        for index, target, source in by_layer_group(grant.swaps_in):
            numbers = self._stores[index].take(source)
            self._memory.write(index, target, numbers.to(self._memory.device))
