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
    if allocator.has_prefix_index:
        assert free_and_named(engine._arrays) == free_and_named_of(other)
        return log
    allocator.check()
    for ours, theirs in zip(state_of(allocator), state_of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return log


def free_and_named(arrays):
    """Return a loop's free blocks in order, and those of each key, oldest first."""
    pool, free, named = arrays.pool, [], {}
    blocks, end = pool.blocks, len(pool.blocks) - 1
    at = blocks[end].behind
    while at != end:
        assert blocks[blocks[at].behind].before == at
        free.append(int(at))
        at = blocks[at].behind
    slots = pool.slots.tolist()
    start = slots.index(-1)  # whoever runs over the end is behind who stands at the start
    for entry in slots[start:] + slots[:start]:
        if entry >= 0 or entry < -1:
            block = entry & (2**32 - 1)
            key = (int(blocks[block].first) % 2**64, int(blocks[block].second) % 2**64)
            named.setdefault(key, []).append(block)
    counts = pool.counts[0]
    assert counts.free == len(free)
    assert counts.cached == blocks.keyed[free].sum()
    assert blocks.keyed.sum() == sum(map(len, named.values()))
    return free, named, int(counts.evictions)


def free_and_named_of(allocator):
    """Return the same of an allocator."""
    allocator.check()
    index, named = allocator.index, {}
    for key, page in index._page_of.items():
        for each in (page, *index._more.get(key, [])):
            named.setdefault((key, int(index._second[each])), []).append(each)
    return allocator.pages.free.pages().tolist(), named, allocator.evictions


FRONT_ENDS = [FrontEnd(), FrontEnd(0.003, 0.002), FrontEnd(0.002, 0.0, plans_ahead=True)]
