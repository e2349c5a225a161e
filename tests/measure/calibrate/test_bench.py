"""How times are taken."""

import numpy as np
import torch

from harness.measure.calibrate.bench import Bench, Laps
from harness.measure.calibrate.grids import tiles, up_to
from harness.measure.calibrate.serving import STEPS_EACH, staircase


def test_samples_of_a_point_are_of_all_rounds_but_the_warm_up():
    bench, taken = Bench(torch.device("cpu")), iter(range(100))
    point = bench.add(lambda: float(next(taken)))
    assert list(bench.run(3)) == [0, 1, 2, 3]
    assert point.taken == [1.0, 2.0, 3.0]


def test_the_time_of_a_call_is_that_of_one_part(monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 0.5))
    monkeypatch.setattr("harness.measure.calibrate.bench.perf_counter", lambda: next(clock))
    point = Bench(torch.device("cpu")).call(lambda: None, parts=4)
    assert point.sample() == 0.125


def test_laps_are_the_times_between_marks(monkeypatch):
    clock = iter([1.0, 1.5, 4.5])
    monkeypatch.setattr("harness.measure.calibrate.bench.perf_counter", lambda: next(clock))
    laps = Laps(torch.device("cpu"))
    for _ in range(3):
        laps.mark()
    assert laps.seconds() == [0.5, 3.0]


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
