"""Memory that executes grants of layered policies, byte by byte: whoever writes overwrites.

It knows nothing of layer groups but how long their slots are.  What a virtual policy maps it keeps
in a page table, and a page-group that is mapped nowhere has lost what it held.
"""

import math

import numpy as np


class ByteMemory:
    """Values by `grain` bytes of the pool, and by (layer group, slot) of host memory."""

    def __init__(self, allocator):
        self.allocator, geometry = allocator, allocator.geometry
        sizes = [kind.slot_bytes // self._pieces(i) for i, kind in enumerate(geometry.layer_groups)]
        self.grain = math.gcd(*sizes, allocator.page_bytes or 0)
        self.sizes = [size // self.grain for size in sizes]
        self.pool = np.full(geometry.pool_bytes // self.grain, -1, dtype=np.int64)
        self.host = {}
        self.mapped = {}  # (layer group, range, column) -> page-group

    def _pieces(self, layer_group):
        return self.allocator.slot_pieces(layer_group, np.zeros(0, np.int64)).shape[1]

    def places(self, layer_group, slots):
        """Return the grains of these slots, [slots, grains of one]."""
        first = self.allocator.slot_pieces(layer_group, np.asarray(slots, np.int64)) // self.grain
        grains = first.shape[1] * self.sizes[layer_group]
        at = (first[:, :, None] + np.arange(self.sizes[layer_group])).reshape(len(first), grains)
        assert at.size == 0 or 0 <= at.min() <= at.max() < len(self.pool), "a slot leaves the pool"
        return at

    def write(self, layer_group, slots, values):
        self.pool[self.places(layer_group, slots)] = np.asarray(values)[:, None]

    def read(self, layer_group, slots):
        """Return the values of these slots, -1 where one was overwritten in part."""
        held = self.pool[self.places(layer_group, slots)]
        whole = (held == held[:, :1]).all(axis=1)
        return np.where(whole, held[:, 0], -1) if len(held) else np.zeros(0, np.int64)

    # -- grants ------------------------------------------------------------------------------
    def swap_and_map(self, grant):
        moved = [
            (g, host + i, self.read(g, [device + i])[0])
            for device, host, n, g in grant.swaps_out.tolist()
            for i in range(n)
        ]
        assert len({(g, host) for g, host, _ in moved}) == len(moved), "two swaps write one slot"
        self.host.update(((g, host), value) for g, host, value in moved)
        for vrange, column, page, g in grant.unmaps.tolist():
            assert self.mapped.pop((g, vrange, column)) == page, (
                "another page-group is mapped there"
            )
        for vrange, column, page, g in grant.maps.tolist():
            assert (g, vrange, column) not in self.mapped, "something is mapped there"
            self.mapped[g, vrange, column] = page
        for device, host, n, g in grant.swaps_in.tolist():
            for i in range(n):
                self.write(g, [device + i], [self.host[g, host + i]])

    def copy(self, grant):
        moved = []
        for source, target, n, g in grant.copies.tolist():
            at = np.arange(n)
            moved.append((g, target + at, self.read(g, source + at)))
        for g, target, values in moved:
            self.write(g, target, values)
