"""How much room there is, for allocators of pages."""

from __future__ import annotations

from collections.abc import Callable


def bisect_headroom(fits: Callable[[int], bool], at_most: int) -> int:
    """Return the largest n <= at_most for which `fits(n)`; `fits` never turns true again."""
    if at_most <= 0:
        return 0
    if fits(at_most):
        return at_most
    low, high = 0, at_most
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
