"""vAttention's own manager, step by step: the slow model and `Virtual` against recorded logs."""

from itertools import zip_longest

import pytest

from tests.allocators.virtual.replay import Replay
from tests.allocators.virtual.slow_manager import SlowManager
from tests.allocators.virtual.slow_scheduler import Request, SlowScheduler
from tests.allocators.virtual.step_logs import runs

EVERY_RUN = [pytest.param(run, id=run.name) for run in runs()] or [
    pytest.param(None, marks=pytest.mark.skip("the vattention_steps data is not at hand"))
]


def assert_same_lines(found, recorded):
    """Compare two logs line by line, every field of the recorded one."""
    for mine, theirs in zip_longest(found, recorded):
        assert mine is not None, f"ended before step {theirs['step']}"
        assert theirs is not None, f"went on with step {mine['step']}"
        wrong = {
            name: (mine.get(name), value) for name, value in theirs.items()
            if mine.get(name) != value
        }  # fmt: skip
        assert not wrong, f"step {theirs['step']}: (found, recorded) {wrong}"


def modelled(run):
    """Yield the lines that the slow model makes of the run's requests."""
    entry = run.entry
    manager = SlowManager(run.shape, run.shape.groups(entry["pool_bytes"]), entry["deferred"])
    waiting = [Request(*request) for request in run.requests()]
    scheduler = SlowScheduler(
        manager, waiting, int(0.01 * entry["gpu_blocks_in_scheduler"]), run.background,
        run.late_release,
    )  # fmt: skip
    while not scheduler.done:
        yield scheduler.step()


@pytest.mark.parametrize("run", EVERY_RUN)
def test_the_model_knows_the_shape_of_each_run(run):
    entry, shape = run.entry, run.shape
    assert shape.group_tokens == entry["tokens_per_group"]
    assert shape.group_pages == entry["pages_per_group"]
    assert shape.most_groups == entry["max_groups_per_slot"]
    assert shape.groups(entry["pool_bytes"]) == entry["pool_groups"]
    assert int(0.01 * entry["gpu_blocks_in_scheduler"]) == entry["watermark_groups"]
    assert len(run.requests()) == entry["requests"]


@pytest.mark.parametrize("run", EVERY_RUN)
def test_the_slow_model_reproduces_every_step(run):
    assert_same_lines(modelled(run), run.lines())


@pytest.mark.parametrize("run", EVERY_RUN)
def test_virtual_does_the_same_at_every_step(run):
    assert_same_lines(Replay(run).lines(), run.lines())
