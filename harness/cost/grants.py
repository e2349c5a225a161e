"""What the roofline charges for what a grant asks of memory: maps, copies, swaps.

A swap is a number of transfers, each of which costs the host a call, and bytes over PCIe.  Servers
differ in how many calls they make of the blocks of a grant (`swap_merge`) and in what goes on
while the bytes move (`swap_overlap`); the calls themselves always come first, for the thread that
makes them is the one that launches the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from allocators.base import Allocator, Geometry, Grant, IntArray
from harness.cost.spec import LARGE_PAGE, CostSpec, page_bytes_of

#: tensors that a layer keeps, where they are not keys and values or a state's two
KEPT = {"latent": 1}


class PricedGrant(NamedTuple):
    """The seconds of what a grant asks for before the step computes, and of those each part's."""

    seconds: float
    maps_s: float
    copies_s: float
    swaps_s: float


class GrantPrices:
    """Prices grants; all times in seconds, all bytes of one rank."""

    def __init__(self, cost: CostSpec, layers: int, byte_s: float, pcie_byte_s: float) -> None:
        """`byte_s` are bytes a second of device memory, `pcie_byte_s` seconds a byte of PCIe."""
        self._cost, self._layers, self._pcie_byte_s = cost, layers, pcie_byte_s
        # each transfer is one of keys and one of values in every layer
        self._transfer_s = 2 * layers * cost.swap_transfer_us * 1e-6
        self.copy_byte_s = 2 / (byte_s * cost.copy_bandwidth_efficiency)
        self._map_us = {page_bytes_of(k): v for k, v in cost.map_us.items()}
        self._unmap_us = {page_bytes_of(k): v for k, v in cost.unmap_us.items()}
        self._create_us = {page_bytes_of(k): v for k, v in cost.create_us.items()}
        self._release_us = {page_bytes_of(k): v for k, v in cost.release_us.items()}

    def grant(self, grant: Grant, allocator: Allocator) -> PricedGrant:
        """Return the seconds of what a grant asks for before the step computes.

        Ranks work in parallel, so a page-group counts its `pages_per_group` driver calls once.
        """
        maps_s = copies_s = swaps_s = 0.0
        geometry = allocator.geometry
        if len(grant.maps) or len(grant.unmaps):
            unmaps, maps = (allocator.driver_calls(of) for of in (grant.unmaps, grant.maps))
            for page_bytes, calls in maps.items():
                map_s, unmap_s = self.call_s(page_bytes)
                maps_s += unmaps[page_bytes] * unmap_s + calls * map_s
        if len(grant.converted):
            maps_s += self._converted_s(grant.converted)
        if len(grant.copies):
            moved = geometry.bytes_moved(grant.copies) / geometry.ranks
            copies_s = self._cost.copy_launch_us * 1e-6 + moved * self.copy_byte_s
        swaps = self._transfers(grant.swaps_out) + self._transfers(grant.swaps_in)
        if swaps:
            swaps_s = swaps * self._transfer_s
            if geometry.layer_groups:
                swaps_s = self._layered_s(grant.swaps_out, geometry)
                swaps_s += self._layered_s(grant.swaps_in, geometry)
            if self._cost.swap_overlap == "none":
                swaps_s += self._sent_s(grant, allocator)
        return PricedGrant(maps_s + copies_s + swaps_s, maps_s, copies_s, swaps_s)

    def overlapped_s(
        self, compute_s: float, grants: Sequence[Grant], allocator: Allocator
    ) -> float:
        """Return the seconds in which a step computes while its grants' bytes are sent.

        `swap_overlap=layers`: the copies of a layer are waited for where that layer begins, so the
        longer of the two starts or ends with one layer of the shorter one.  `step`: nobody waits.
        """
        if self._cost.swap_overlap == "none":
            return compute_s
        sent_s = sum((self._sent_s(grant, allocator) for grant in grants), 0.0)
        if self._cost.swap_overlap == "layers":
            return max(compute_s, sent_s) + min(compute_s, sent_s) / self._layers
        return max(compute_s, sent_s)

    def _layered_s(self, swaps: IntArray, geometry: Geometry) -> float:
        """Return the seconds of the host's calls for rows of (device slot, host, slots, group).

        A transfer is one of keys and one of values in every layer of its layer group.
        """
        if not len(swaps):
            return 0.0
        calls = sum(
            KEPT.get(group.kind, 2) * group.layers * self._transfers(swaps[swaps[:, 3] == at])
            for at, group in enumerate(geometry.layer_groups)
        )
        return calls * self._cost.swap_transfer_us * 1e-6

    def _transfers(self, swaps: IntArray) -> int:
        """Return how many transfers rows of (device slot, host slot, slots) are."""
        if not len(swaps) or self._cost.swap_merge == "none":
            return len(swaps)
        if self._cost.swap_merge == "all":
            return 1
        ends = swaps[:-1, :2] + swaps[:-1, 2:3]
        return len(swaps) - int((ends == swaps[1:, :2]).all(axis=1).sum())

    def _sent_s(self, grant: Grant, allocator: Allocator) -> float:
        geometry = allocator.geometry
        sent = geometry.bytes_moved(grant.swaps_out) + geometry.bytes_moved(grant.swaps_in)
        return sent / geometry.ranks * self._pcie_byte_s

    def _converted_s(self, converted: IntArray) -> float:
        """Return the seconds of rows of (chunk, bytes of its pages so far, from then on).

        The handles of all its pages are released, and those of the others created.
        """
        seconds = 0.0
        for before, after in converted[:, 1:].tolist():
            chunk = max(before, after)
            release = self._release_us.get(before, self._cost.release_us[LARGE_PAGE])
            create = self._create_us.get(after, self._cost.create_us[LARGE_PAGE])
            seconds += (chunk // before * release + chunk // after * create) * 1e-6
        return seconds

    def call_s(self, page_bytes: int) -> tuple[float, float]:
        """Return the seconds of a driver call that maps such a page, and of one that unmaps it."""
        # No modified driver adds a size that is not listed, so the unmodified one's calls map it.
        map_us = self._map_us.get(page_bytes, self._cost.map_us[LARGE_PAGE])
        unmap_us = self._unmap_us.get(page_bytes, self._cost.unmap_us[LARGE_PAGE])
        return map_us * 1e-6, unmap_us * 1e-6
