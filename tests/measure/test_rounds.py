"""How times are taken: in rounds, per call, and between marks."""

import numpy as np
import torch

from harness.measure.rounds import Rounds
from harness.measure.timing import Timer

CPU = Timer(torch.device("cpu"))


def test_samples_are_of_all_rounds_but_the_warm_up():
    rounds, taken = Rounds(CPU), iter(range(100))
    number = rounds.add(lambda: float(next(taken)))
    assert list(rounds.run(3)) == [0, 1, 2, 3]
    assert number.taken_s == [1.0, 2.0, 3.0]


def test_a_short_call_is_repeated_and_its_time_is_that_of_one(monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 0.25e-3))
    monkeypatch.setattr("harness.measure.timing.perf_counter", lambda: next(clock))
    calls = []
    number = Rounds(CPU).call(lambda: calls.append(1))
    assert number.sample() == 0.25e-3 / 4
    assert len(calls) == 1 + 1 + 4


def test_laps_are_the_times_between_marks(monkeypatch):
    clock = iter([1.0, 1.5, 4.5])
    monkeypatch.setattr("harness.measure.timing.perf_counter", lambda: next(clock))
    assert CPU.laps([CPU.mark() for _ in range(3)]) == [0.5, 3.0]
