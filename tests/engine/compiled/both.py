"""One run by the engine over arrays, and the same by the step engine, held to each other."""

import numpy as np

from harness.engine.arrivals import FrontEnd
from harness.engine.compiled.build import LOOPS
from harness.engine.compiled.engine import CompiledEngine
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from tests.engine.cases import roofline

GREEDY = SamplingSpec("greedy")


def over_arrays(allocator, requests, spec, front_end=None, executor=roofline, interpreted=True):
    """Return the engine over arrays; `interpreted`: its loop runs as Python, not compiled."""
    prices = executor(allocator).prices()
    engine = CompiledEngine(allocator, requests, GREEDY, spec, prices, 0, front_end)
    if interpreted:
        engine._serve = LOOPS[spec.policy]
    return engine


def step_by_step(allocator, requests, spec, front_end=None, executor=roofline):
    """Return the step engine."""
    return Engine(allocator, requests, GREEDY, spec, executor(allocator), 0, front_end=front_end)


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


def compare(make, requests, front_end=None, interpreted=True, executor=roofline, **options):
    """Run both on allocators of `make`; return the log, or None if nobody can serve a request."""
    allocator, other = make(), make()
    options.setdefault("max_num_seqs", allocator.geometry.max_seqs)
    spec = EngineSpec(**options)
    expected = step_by_step(other, requests, spec, front_end, executor)
    engine = over_arrays(allocator, requests, spec, front_end, executor, interpreted)
    log, ours = (outcome(run) for run in (expected, engine))
    if isinstance(log, str):
        assert ours == log
        return None
    assert_same(ours, log)
    allocator.check()
    for ours, theirs in zip(state_of(allocator), state_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return log


FRONT_ENDS = [FrontEnd(), FrontEnd(0.003, 0.002), FrontEnd(0.002, 0.0, plans_ahead=True)]
