"""What a compiled loop asks the clock; the answer is that of the prices' own module, by type."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

from harness.engine.executor import Executor

#: the type of a clock's constants, and the module of its functions, which the executor registers
CLOCKS: dict[type, ModuleType] = {}
CALLS = ("step", "copies_s", "maps_s")


class StepWork(NamedTuple):
    """What one step computes, in whole numbers.

    Of `pieces` of prompts `own` tokens are computed and `read` ones attended to, themselves
    included; `crossed` is the sum of own x past over the pieces, and `squares` of own x own.
    `decodes` sequences feed one token each and read `context` slots.  `rows` have a block table,
    each as wide as the longest, of `longest` slots.
    """

    decodes: int
    context: int
    pieces: int
    own: int
    read: int
    crossed: int
    squares: int
    sampled: int
    rows: int
    longest: int


def clock_of(executor: Executor) -> Any:
    """Return the constants of an executor's clock; None if no compiled loop can ask it."""
    return getattr(executor, "prices", lambda: None)()


NO_WORK = StepWork(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def step(prices: Any, work: StepWork) -> Any:
    """Return the `seconds` in which a step computes, and its linear, attention, all_reduce `_s`."""
    return CLOCKS[type(prices)].step(prices, work)


def copies_s(prices: Any, slots: int) -> float:
    """Return the seconds of a grant that copies so many slots."""
    return CLOCKS[type(prices)].copies_s(prices, slots)


def maps_s(prices: Any, maps: int, unmaps: int) -> float:
    """Return the seconds of a grant that maps and unmaps so many page-groups."""
    return CLOCKS[type(prices)].maps_s(prices, maps, unmaps)
