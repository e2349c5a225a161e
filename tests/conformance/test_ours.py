"""Our own allocators pass the public suite."""

import pytest
from hypothesis import settings

from harness.conformance import AllocatorConformance
from tests.conformance import layer_groups, matrix

CASES = matrix.cases() | layer_groups.cases()


@pytest.mark.parametrize("case", CASES)
class TestOurs(AllocatorConformance):
    #: as many examples and schedules as find the bugs of `test_teeth`
    settings = settings(AllocatorConformance.settings, max_examples=4)
    seeds = 3

    @pytest.fixture(autouse=True)
    def _choose(self, case):
        self.build, self.geometry, self.knobs, self.expects = CASES[case]

    def make(self):
        return self.build(self.geometry, **self.knobs)
