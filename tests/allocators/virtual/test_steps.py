"""vAttention's own manager, step by step: the slow model and `Virtual` against recorded logs."""

from itertools import zip_longest

import numpy as np
import pytest

from tests.allocators.virtual.replay import Replay
from tests.allocators.virtual.slow_manager import Shape
from tests.allocators.virtual.step_logs import EVERY_RUN, Setup


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


@pytest.mark.parametrize("run", EVERY_RUN)
def test_the_model_knows_the_shape_of_each_run(run):
    entry, setup, shape = run.entry, run.setup, run.setup.shape
    assert shape.group_tokens == entry["tokens_per_group"]
    assert shape.group_pages == entry["pages_per_group"]
    assert shape.most_groups == entry["max_groups_per_slot"]
    assert setup.groups == entry["pool_groups"] == entry["gpu_blocks_in_scheduler"]
    assert setup.watermark == entry["watermark_groups"]
    assert len(setup.requests) == entry["requests"]


@pytest.mark.parametrize("run", EVERY_RUN)
def test_the_slow_model_reproduces_every_step(run):
    assert_same_lines(run.setup.modelled(), run.lines())


@pytest.mark.parametrize("run", EVERY_RUN)
def test_virtual_does_the_same_at_every_step(run):
    assert_same_lines(Replay(run.setup, run.lines()).lines(), run.lines())


#: (shape, groups, median prompt, median output): pages under 2 MiB, all layers in one tensor, a
#: buffer that holds fewer groups than its tokens ask for, and few tokens a group
OTHERS = {
    "64KiB": (Shape(32, 4, 128, 1024, 24, 64 << 10), 60, 110, 110),
    "one_tensor": (Shape(32, 8, 128, 1024, 16, 2 << 20, True), 96, 150, 110),
    "one_tensor_256KiB": (Shape(12, 4, 96, 700, 16, 256 << 10, True), 60, 75, 110),
    "short_buffer": (Shape(4, 40, 128, 2048, 16, 2 << 20), 25, 900, 200),
    "tiny": (Shape(2, 8, 512, 64, 8, 64 << 10), 14, 9, 9),
    "odd": (Shape(3, 5, 640, 61, 10, 64 << 10), 14, 9, 10),
}
MODES = {"async": (True, True), "async_reclaim": (True, False), "sync": (False, True)}


#: any two of the three together in each run, all three with `further`
TOGETHER = [
    pytest.param(
        name, mode, late, id=f"{name}-{mode}-{'late' if late else 'at once'}",
        marks=[pytest.mark.further] if (i + j + late) % 2 else [],
    )
    for i, name in enumerate(OTHERS)
    for j, mode in enumerate(MODES)
    for late in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("name", "mode", "late_release"), TOGETHER)
def test_virtual_does_what_the_model_does_of_other_shapes(name, mode, late_release):
    shape, groups, prompt, output = OTHERS[name]
    rng, n = np.random.default_rng(7), 30
    prompts = np.clip(rng.lognormal(np.log(prompt), 0.8, n), 1, shape.max_len // 2).astype(int)
    outputs = np.clip(rng.lognormal(np.log(output), 0.8, n), 1, shape.max_len - prompts)
    requests = list(zip(range(n), prompts.tolist(), outputs.astype(int).tolist(), strict=True))
    setup = Setup(shape, groups, *MODES[mode], late_release, requests)
    lines = list(setup.modelled())
    assert any(line["preempted"] for line in lines)
    assert_same_lines(Replay(setup, lines).lines(), lines)
