"""Many times at once, taken in rounds: one sample of each, then the next sample of each.

On a machine that others use too, a slow second then falls on a sample of many times and not on all
samples of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.measure.timing import Timer

#: a sample shorter than this repeats the call, so that the clock and the synchronisation vanish
LEAST_SAMPLE_S = 1e-3
MOST_CALLS = 1000

#: amounts by their name, and as "seconds" what is measured at each: first as `Sampled`
Table = dict[str, Any]


@dataclass
class Sampled:
    """A number to be measured: `sample()` takes it once, in seconds."""

    sample: Callable[[], float]
    taken_s: list[float] = field(default_factory=list)


class Rounds:
    """Collects what is to be measured, then measures all of it."""

    def __init__(self, timer: Timer) -> None:
        self.timer = timer
        self.numbers: list[Sampled] = []

    def call(self, work: Callable[[], Any]) -> Sampled:
        """Add the time of `work()`; calls follow one another and the device ends them."""
        calls = 0

        def sample() -> float:
            nonlocal calls
            if not calls:  # the first time compiles and allocates, the second says how many
                self.timer.call_s(work, 1)
                once_s = max(self.timer.call_s(work, 1), 1e-9)
                calls = min(MOST_CALLS, max(1, round(LEAST_SAMPLE_S / once_s)))
            return self.timer.call_s(work, calls)

        return self.add(sample)

    def add(self, sample: Callable[[], float]) -> Sampled:
        """Add a number that takes its own time."""
        number = Sampled(sample)
        self.numbers.append(number)
        return number

    def table(
        self, name: str, amounts: Sequence[int], work: Callable[[int], Callable[[], Any]]
    ) -> Table:
        """Add the time of `work(amount)()` at each amount; `name` is that of the amount."""
        return {name: list(amounts), "seconds": [self.call(work(amount)) for amount in amounts]}

    def run(self, repeats: int) -> Iterator[int]:
        """Measure everything `repeats` times after a warm-up; yields after each round."""
        for number in range(repeats + 1):
            for each in self.numbers:
                seconds = each.sample()
                if number:
                    each.taken_s.append(seconds)
            yield number
