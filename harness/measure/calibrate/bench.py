"""Takes times: many points, in rounds, the median (or the least) of each.

Rounds, not one point after the other: on a machine that others use too, a slow second then falls
on a sample of many points and not on all samples of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch

#: a sample shorter than this repeats the call, so that the clock and the synchronisation vanish
LEAST_SAMPLE_S = 1e-3
MOST_CALLS = 1000


@dataclass
class Point:
    """One number of the file: `sample()` takes it once, in seconds."""

    sample: Callable[[], float]
    taken: list[float] = field(default_factory=list)


class Laps:
    """Marks in a stretch of work, on the device's own clock."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Note that all work so far has been asked for."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(perf_counter())

    def seconds(self) -> list[float]:
        """Return the seconds from each mark to the next; waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return [a.elapsed_time(b) * 1e-3 for a, b in pairwise(self._marks)]
        return [b - a for a, b in pairwise(self._marks)]


class Bench:
    """Collects points, then measures all of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.points: list[Point] = []

    def call(self, work: Callable[[], Any], parts: int = 1) -> Point:
        """Add the time of `work()` / `parts`; calls follow one another and the device ends them."""
        calls = 0

        def sample() -> float:
            nonlocal calls
            if not calls:  # the first time compiles and allocates, the second says how many
                self.time(work, 1)
                once = max(self.time(work, 1), 1e-9)
                calls = min(MOST_CALLS, max(1, round(LEAST_SAMPLE_S / once)))
            return self.time(work, calls) / parts

        return self.add(sample)

    def add(self, sample: Callable[[], float]) -> Point:
        """Add a point that takes its own time."""
        point = Point(sample)
        self.points.append(point)
        return point

    def time(self, work: Callable[[], Any], calls: int) -> float:
        """Return the seconds of one of `calls` calls, the device's work included."""
        self.synchronize()
        start = perf_counter()
        for _ in range(calls):
            work()
        self.synchronize()
        return (perf_counter() - start) / calls

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def run(self, repeats: int) -> Iterator[int]:
        """Measure all points `repeats` times after a warm-up; yields after each round."""
        for number in range(repeats + 1):
            for point in self.points:
                seconds = point.sample()
                if number:
                    point.taken.append(seconds)
            yield number
