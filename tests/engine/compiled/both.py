"""One run by the engine over arrays, and the same by the step engine, held to each other."""

import numpy as np

from harness.engine.arrivals import FrontEnd
from harness.engine.compiled.build import LOOPS
from harness.engine.compiled.engine import CompiledEngine
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from harness.engine.setup import Setup
from tests.engine.cases import roofline
from tests.engine.compiled.free_blocks import free_and_named, free_and_named_of

GREEDY = SamplingSpec("greedy")
FRONT_ENDS = [FrontEnd(), FrontEnd(0.003, 0.002), FrontEnd(0.002, 0.0, plans_ahead=True)]


def over_arrays(setup, interpreted=True):
    """Return the engine over arrays; `interpreted`: its loop runs as Python, not compiled."""
    engine = CompiledEngine(setup)
    if interpreted:
        engine._serve = LOOPS[setup.options.policy]
    return engine


def state_of(allocator):
    """Return what of an allocator outlives a run: the order of what is free, and what is kept."""
    if hasattr(allocator, "placement"):
        return [np.array(allocator.placement.spaces())]
    kept = [allocator.pages.free.pages(), allocator.pages.count, allocator.pages.table]
    return [array.copy() for array in kept]


def assert_same(log, expected):
    """Assert that two logs are equal to the bit, but for the host's time."""
    for ours, theirs in ((log.timeline, expected.timeline), (log.requests, expected.requests)):
        assert list(ours) == list(theirs) or set(ours) == set(theirs)
        for name, column in theirs.items():
            assert ours[name].dtype == column.dtype, name
            np.testing.assert_array_equal(ours[name], column, err_msg=name)
    for ours, theirs in zip(log.token_gaps.values(), expected.token_gaps.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg="token gaps")
    assert log.capacity_bytes == expected.capacity_bytes
    totals = {k: v for k, v in expected.totals.items() if k != "allocator_host_s"}
    assert log.totals == totals


def outcome(engine):
    """Return the log of a run, or why nobody can serve a request."""
    try:
        return engine.run("x")
    except Unservable as error:
        return str(error)


def compare(
    make,
    requests,
    front_end=FRONT_ENDS[0],
    interpreted=True,
    executor=roofline,
    sampling=GREEDY,
    seed=0,
    **options,
):
    """Run both on allocators of `make`; return the log, or None if nobody can serve a request."""
    allocator, other = make(), make()
    options.setdefault("max_num_seqs", allocator.geometry.max_seqs)
    spec = EngineSpec(**options)

    def setup(of):
        return Setup(of, requests, sampling, spec, executor(of), seed, front_end=front_end)

    expected, engine = Engine(setup(other)), over_arrays(setup(allocator), interpreted)
    log, ours = (outcome(run) for run in (expected, engine))
    if isinstance(log, str):
        assert ours == log
        return None
    assert_same(ours, log)
    if allocator.has_prefix_index:
        assert free_and_named(engine._arrays) == free_and_named_of(other)
        return log
    allocator.check()
    for ours, theirs in zip(state_of(allocator), state_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return log
