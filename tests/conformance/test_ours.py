"""Our own allocators pass the public suite."""

import pytest
from hypothesis import settings

from harness.conformance import AllocatorConformance
from tests.conformance import layer_groups, matrix

CASES = matrix.cases() | layer_groups.cases()
#: pairs of options of which each run has either in other pairs
FURTHER = {
    f"contiguous-{reservation}-{placement}"
    for reservation in ("max", "pow2", "oracle")
    for placement in ("buddy", "best_fit")
} | {
    "virtual-128KiB-sliced",
    "virtual-256KiB-per_layer",
    "virtual-256KiB-sliced",
    "paged-hybrid-state",
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.further] if case in FURTHER else []) for case in CASES],
)
class TestOurs(AllocatorConformance):
    #: as many examples and schedules as find the bugs of `test_teeth`
    settings = settings(AllocatorConformance.settings, max_examples=4)
    seeds = 3

    @pytest.fixture(autouse=True)
    def _choose(self, case):
        self.build, self.geometry, self.knobs, self.expects = CASES[case]

    def make(self):
        return self.build(self.geometry, **self.knobs)
