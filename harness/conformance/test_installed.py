"""`pytest --pyargs harness.conformance`: the suite over every installed allocator, default knobs.

Each is built as a comparison builds it, in the first that fits it of `SMALL_GEOMETRY`,
`ROOMY_GEOMETRY` and `LAYERED_GEOMETRY`.  One whose defaults need another pool is skipped; its
author names the geometry in a class of their own.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import pytest

from allocators.base import Allocator, AllocatorError, Geometry
from harness.conformance.suite import (
    LAYERED_GEOMETRY,
    ROOMY_GEOMETRY,
    SMALL_GEOMETRY,
    AllocatorConformance,
)

INSTALLED = sorted(entry_points(group="kv_harness.allocators"), key=lambda found: found.name)


def pool_for(kind: type[Allocator]) -> Geometry:
    """Return the first pool that the policy takes; raises `AllocatorError` where it takes none."""
    for geometry in (SMALL_GEOMETRY, ROOMY_GEOMETRY):
        try:
            kind.of(geometry)
        except AllocatorError:
            continue
        return geometry
    kind.of(LAYERED_GEOMETRY)
    return LAYERED_GEOMETRY


@pytest.mark.parametrize("found", INSTALLED, ids=lambda found: found.name)
class TestInstalled(AllocatorConformance):
    @pytest.fixture(autouse=True)
    def _choose(self, found: EntryPoint) -> None:
        self.kind = found.load()
        try:
            self.geometry = pool_for(self.kind)
        except AllocatorError as error:
            pytest.skip(f"{found.name} with its default knobs: {error}")

    def make(self) -> Allocator:
        return self.kind.of(self.geometry)
