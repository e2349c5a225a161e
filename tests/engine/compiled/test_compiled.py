"""Compiled, the loop takes the same steps as when Python runs it, and as the step engine.

Compiling a loop takes some twenty seconds, so that one is compiled here; the others are tested
where a run with `engine.compiled=on` has left them on disk.
"""

import pytest

from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.rules.families import FAMILIES
from allocators.virtual import Virtual
from harness.cost import flat
from harness.engine.compiled.build import is_kept
from tests.engine.cases import MODES, POOL, drawn
from tests.engine.compiled.both import FRONT_ENDS, compare

MAKE = {
    "paged": lambda: Paged(POOL, block_size=4),
    "hashed": lambda: Paged(POOL, block_size=4, prefix_index="hash"),
    "virtual": lambda: Virtual(POOL, page_size="64KiB"),
    "contiguous": lambda: Contiguous(POOL, reservation="grow"),
}
ALWAYS = ("chunked", "paged")
GROUPS = ("parallel", "beam")


def loop_of(name, policy):
    """Skip unless the loop is one that is compiled here, or is on disk."""
    family = FAMILIES[type(MAKE[name]().arrays())]
    if (policy, name) != ALWAYS and not is_kept(policy, family, flat):
        pytest.skip("this loop was never compiled here: run +workload=uniform engine.compiled=on")


@pytest.mark.parametrize("policy", ["chunked", "continuous", "static", "orca"])
@pytest.mark.parametrize("name", MAKE)
def test_a_compiled_run_is_that_of_the_step_engine(name, policy):
    if (name, policy) == ("hashed", "static"):
        pytest.skip("no loop serves it")
    loop_of(name, policy)
    for front_end in FRONT_ENDS:
        requests = drawn(300, "poisson", 0.001, seed=3)
        log = compare(MAKE[name], requests, front_end, interpreted=False, policy=policy)
        assert log.timeline["preemptions"].sum() > 20
        assert log.timeline["saturated"].any()
        assert not log.timeline["saturated"].all()


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("chunked", "parallel"),
        *[(policy, mode) for policy in ("continuous", "static", "orca") for mode in GROUPS],
    ],
)
@pytest.mark.parametrize("name", ["paged", "virtual", "contiguous"])
def test_a_compiled_run_of_groups_is_that_of_the_step_engine(name, policy, mode):
    loop_of(name, policy)
    requests = drawn(100, "poisson", 0.001, seed=3)
    sampling = MODES[mode]
    log = compare(MAKE[name], requests, interpreted=False, policy=policy, sampling=sampling)
    assert log.timeline["preemptions"].sum() > 5
    assert log.timeline["copied_bytes"].any()
    assert log.timeline["saturated"].any()
