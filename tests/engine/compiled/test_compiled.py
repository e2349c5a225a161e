"""Compiled, the loop takes the same steps as when Python runs it, and as the step engine."""

import pytest

from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from tests.engine.cases import POOL, drawn
from tests.engine.compiled.both import FRONT_ENDS, compare

RUNS = {
    "chunked paged": ("chunked", lambda: Paged(POOL, block_size=4)),
    "orca virtual": ("orca", lambda: Virtual(POOL, page_size="64KiB")),
    "continuous contiguous": ("continuous", lambda: Contiguous(POOL, reservation="grow")),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_compiled_run_is_that_of_the_step_engine(name):
    policy, make = RUNS[name]
    for front_end in FRONT_ENDS:
        requests = drawn(300, "poisson", 0.001, seed=3)
        log = compare(make, requests, front_end, interpreted=False, policy=policy)
        assert log.timeline["preemptions"].sum() > 50
        assert log.timeline["saturated"].any()
        assert not log.timeline["saturated"].all()
