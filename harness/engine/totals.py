"""Accounting: what is summed over a whole run and is no column of its timeline."""

from __future__ import annotations

from allocators.base import Allocator, Grant
from harness.engine.executor import Executor, Samples
from harness.engine.schedulers import Scheduler


class Totals:
    """Counts the operations on memory, and the time between steps."""

    def __init__(self, allocator: Allocator, executor: Executor) -> None:
        self._allocator, self._executor = allocator, executor
        self._bytes_per_token = allocator.geometry.bytes_per_token
        self._gap_s = self._gap_cached_byte_s = self._map_s = 0.0
        self._maps = self._unmaps = self._swapped_bytes = 0

    def wait(self, seconds: float, cached_bytes: int) -> None:
        """Count a gap in which nothing runs, and what is cached through it."""
        self._gap_s += seconds
        self._gap_cached_byte_s += cached_bytes * seconds

    def execute(self, grants: list[Grant]) -> int:
        """Count page-groups mapped and unmapped, and bytes swapped; return the bytes copied."""
        copied, geometry = 0, self._allocator.geometry
        for grant in grants:
            self._maps += len(grant.maps)
            self._unmaps += len(grant.unmaps)
            if len(grant.maps) or len(grant.unmaps) or len(grant.converted):
                self._map_s += self._executor.map_s(grant)
            copied += geometry.bytes_moved(grant.copies)
            swapped = geometry.bytes_moved(grant.swaps_out) + geometry.bytes_moved(grant.swaps_in)
            self._swapped_bytes += swapped
        return copied

    def of_run(self, scheduler: Scheduler, host_s: float, hit_tokens: int) -> dict[str, float]:
        """Return the totals of a `RunLog`; those of mapping and evicting only where it happens."""
        late_map_s = self._executor.finish() if isinstance(self._executor, Samples) else 0.0
        totals = {
            "gap_s": self._gap_s,
            "gap_cached_byte_s": self._gap_cached_byte_s,
            "swapped_bytes": float(self._swapped_bytes),
            "allocator_host_s": host_s,
            "looked_up_tokens": float(scheduler.looked_up_tokens),
            "wasted_tokens": float(scheduler.wasted_tokens),
            "hit_bytes": float(hit_tokens * self._bytes_per_token),
        }
        if self._allocator.has_prefix_index:
            totals["evictions"] = float(self._allocator.evictions)
        if self._allocator.pages_per_group:
            totals["maps"], totals["unmaps"] = float(self._maps), float(self._unmaps)
            totals["map_s"] = self._map_s + late_map_s
        return totals
