"""Two situations of swapping that random calls seldom reach: a full host, and a pool just full."""

from __future__ import annotations

import numpy as np

from allocators.base import Demand, Prompt
from harness.conformance.driver import Driver, Make


def tickets_held(driver: Driver) -> int:
    """Suspend sequences of one token until host memory is full; return how many it took."""
    for ticket in range(driver.geometry.host_tokens + 1):
        admitted = driver.admit(np.array([0]), Prompt(1), Demand(1, 1))
        if not admitted or not driver.suspend(np.array([0]), ticket):
            break
    return len(driver.tickets)


def resumes_beside(make: Make, others: int) -> bool | None:
    """Say whether a gang of two is resumed beside `others` tokens of other sequences.

    It fills its last unit of memory, so that it needs more to grow.  The driver checks that a
    resume leaves room for that.  None if it cannot be suspended, False if the others do not fit.
    """
    driver, ticket = Driver(make), 0
    geometry = driver.geometry
    unit, most = geometry.page_tokens, min(geometry.max_len - 1, geometry.host_tokens // 2)
    if most < unit:
        return None
    prompt, pair = max(1, most // unit // 2) * unit, np.array([0, 1])
    if not driver.admit(pair, Prompt(prompt), Demand(prompt, geometry.max_len - prompt)):
        return None
    if not driver.suspend(pair, ticket):
        return None
    full, rest = divmod(others, geometry.max_len)
    for length in [geometry.max_len] * full + [rest] * (rest > 0):
        idle = driver.idle
        if len(idle) < 3:
            return False
        if not driver.admit(np.array(idle[-1:]), Prompt(length), Demand(length, 1)):
            return False
    return driver.resume(pair, ticket)
