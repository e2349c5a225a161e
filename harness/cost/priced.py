"""What a step's time is made of, as a cost model prices it."""

from __future__ import annotations

from typing import NamedTuple

from harness.cost.curves import FloatArray


class Priced(NamedTuple):
    """The seconds in which a step computes, and of those what the GPU spends on each part.

    `linear_s` are matrix products and the small kernels between them; what remains is software, as
    far as the GPU does not hide it.  Numbers of one step, or [steps] of several: those that are the
    same in all may be a number.
    """

    seconds: float | FloatArray
    linear_s: float | FloatArray
    attention_s: float | FloatArray
    all_reduce_s: float | FloatArray


class PricedGrant(NamedTuple):
    """The seconds of what a grant asks for before the step computes, and of those each part's."""

    seconds: float
    maps_s: float
    copies_s: float
    swaps_s: float


NOTHING = Priced(0.0, 0.0, 0.0, 0.0)
