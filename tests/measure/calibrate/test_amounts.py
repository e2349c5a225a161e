"""Which amounts are measured, and the runs that the overhead of a step is taken from."""

from contextlib import ExitStack

import torch

from allocators.base import Geometry
from harness.executors.model.real_run import RealRun
from harness.executors.model.settings import settle
from harness.measure.calibrate import measure, memory
from harness.measure.calibrate.grids import QUICK, tiles, up_to
from harness.measure.calibrate.options import executor_spec, parse
from harness.measure.calibrate.overhead import STEPS_EACH, staircase
from harness.measure.rounds import Rounds
from harness.measure.timing import Timer
from tests.measure.calibrate.test_command import SMALL, TINY


def test_amounts_end_where_the_model_ends_and_come_in_whole_tiles():
    assert up_to((1, 10, 100), 50) == [1, 10, 50]
    assert up_to((1, 10), 50) == [1, 10]
    assert up_to((1, 10), 10) == [1, 10]
    assert tiles((1, 16, 17, 40), 16) == [16, 32, 48]
    assert tiles((1, 3), 1) == [1, 3]


def test_a_staircase_decodes_as_often_with_each_number_of_rows():
    outputs = staircase((1, 4, 16)).output_tokens
    # the first token comes with the prompt
    running = [(outputs - 1 > step).sum() for step in range(3 * STEPS_EACH)]
    assert running == [16] * STEPS_EACH + [4] * STEPS_EACH + [1] * STEPS_EACH
    assert outputs.max() == 1 + 3 * STEPS_EACH


def test_maps_are_timed_with_the_handles_that_a_run_has(monkeypatch):
    seen, made = [], memory.backing_for

    def noted(*arguments, **options):
        seen.append((options["handles"], made(*arguments, **options)))
        return seen[-1][1]

    monkeypatch.setattr(memory, "backing_for", noted)
    room = Geometry(
        capacity_tokens=64, max_seqs=4, max_len=64, layers=2, kv_heads=1, head_dim=16,
        dtype_bytes=4,
    )  # fmt: skip
    rounds = Rounds(Timer(torch.device("cpu")))
    with ExitStack() as held:
        tables = memory.maps(rounds, QUICK, room, torch.float32, "ahead", held)
        assert tables["map"]["page_bytes"] == [64 << 10, 128 << 10, 256 << 10, 2 << 20]
        assert [handles for handles, _ in seen] == ["ahead"] * 4
        # all there before anything is mapped
        assert all(backing.committed_bytes for _, backing in seen)


def test_where_time_runs_out_fewer_rounds_count(monkeypatch):
    monkeypatch.setattr(measure, "QUICK", SMALL)
    monkeypatch.setattr("harness.measure.rounds.LEAST_SAMPLE_S", 1e-5)
    options = parse(["quick=true", "repeats=5", "device=cpu"])
    spec = executor_spec(options)
    real = RealRun(spec, settle(spec, TINY), 0)
    clock = iter(range(100, 0, -20))  # a round takes 20, and another is begun with 40 or more
    found = measure.measure(real, options, "command", lambda: float(next(clock)))
    assert found.repeats == 3
