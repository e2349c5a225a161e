"""Our own allocators pass the public suite."""

import pytest
from hypothesis import settings

from harness.conformance import AllocatorConformance
from tests.conformance import layer_groups, matrix

CASES = matrix.cases() | layer_groups.cases()
#: left to `make test-further`: every run has each option in other cases, and nearly any two
FURTHER = {
    *(f"contiguous-{r}-{p}" for r in ("max", "pow2", "oracle") for p in ("buddy", "best_fit")),
    *(f"virtual-{each}" for each in ("128KiB-sliced", "256KiB-per_layer", "256KiB-sliced")),
    *(f"virtual-vattention-{s}-{o}" for s in ("copy", "hash") for o in ("deferred", "background")),
    *(f"virtual-paper-alias-{o}" for o in ("deferred", "background", "eager")),
    *(f"virtual-paper-hash-{o}-eager" for o in ("deferred", "background")),
    "virtual-paper-alias-deferred-background-eager",
    "virtual-paper-hash",
    "virtual-paper-hash-deferred-background",
    "paged-hybrid-state",
    *("paged-uniform-latent", "paged-uniform-cross"),
    *("contiguous-max-layers", "contiguous-oracle-layers"),
    *("virtual-layers-sliced", "virtual-layers-per_layer-deferred"),
    *("jenga-watermark", "jenga-7-all"),
    *("virtual-sizes-256KiB-all", "virtual-sizes-64KiB-windows"),
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
