"""`pytest --pyargs harness.conformance`: the suite over every installed allocator, default knobs.

An allocator whose defaults need another pool than `SMALL_GEOMETRY` or `ROOMY_GEOMETRY` is skipped
here; its author names the geometry in a class of their own.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import pytest

from allocators.base import Allocator, AllocatorError
from harness.conformance.suite import ROOMY_GEOMETRY, SMALL_GEOMETRY, AllocatorConformance

INSTALLED = sorted(entry_points(group="kv_harness.allocators"), key=lambda found: found.name)


@pytest.mark.parametrize("found", INSTALLED, ids=lambda found: found.name)
class TestInstalled(AllocatorConformance):
    @pytest.fixture(autouse=True)
    def _choose(self, found: EntryPoint) -> None:
        self.build = found.load()
        for geometry in (SMALL_GEOMETRY, ROOMY_GEOMETRY):
            self.geometry = geometry
            try:
                self.make()
            except AllocatorError as error:
                reason = str(error)
            else:
                return
        pytest.skip(f"{found.name} with its default knobs: {reason}")

    def make(self) -> Allocator:
        return self.build(self.geometry)
