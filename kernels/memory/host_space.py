"""Host memory for KV that leaves the device for a while: swapped sequences, offloaded prefixes."""

from __future__ import annotations

import torch

from allocators.base import Grant
from kernels.cache import expand
from kernels.memory.base import Backing, OutOfMemory


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
            try:
                self._held = torch.empty(shape, dtype=memory.dtype, pin_memory=pinned)
            except RuntimeError as error:  # what torch raises where the CPU has no memory left
                raise OutOfMemory(f"{g.host_tokens} slots of host memory: {error}") from error
        return self._held
