"""KV memory that really exists, and executes the grants of an allocator.

    with backing_for(allocator, dtype=torch.float32, device="cpu") as memory:
        memory.apply(grant)
        store(k, v, memory.keys(layer), memory.values(layer), new_slots(layout, [1, 1]))

`backing_for` chooses by what the allocator declares: page-groups that are mapped (`virtual`), block
tables or plain extents (`pool`).  Every backing is a context manager; leaving it, in whatever way,
unmaps and frees everything.
"""

from kernels.memory.base import Backing, BackingError, OutOfMemory
from kernels.memory.build import backing_for

__all__ = ["Backing", "BackingError", "OutOfMemory", "backing_for"]
