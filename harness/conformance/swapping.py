"""Two situations of swapping that random calls seldom reach: a full host, and a pool just full."""

from __future__ import annotations

import numpy as np

from allocators.base import Allocator, Demand, Prompt
from harness.conformance.trial import Make, Trial


def tickets_held(allocator: Allocator) -> int:
    """Suspend sequences of one token until host memory is full; return how many it took."""
    row = np.array([0])
    for ticket in range(allocator.geometry.host_tokens + 1):
        if allocator.admit(row, Prompt(1), Demand(1, 1)) is None:
            return ticket
        allocator.begin_step()
        if allocator.suspend(row, ticket) is None:
            return ticket
        allocator.begin_step()
    return ticket


def resumes_beside(make: Make, others: int) -> bool | None:
    """Say whether a group of two is resumed beside `others` tokens of other sequences.

    It fills its last unit of memory, so that it needs more to grow.  The trial checks that a
    resume leaves room for that.  None if it cannot be suspended, False if the others do not fit.
    """
    trial, ticket = Trial(make), 0
    geometry = trial.geometry
    unit, most = geometry.page_tokens, min(geometry.max_len - 1, geometry.host_tokens // 2)
    if most < unit:
        return None
    prompt, pair = max(1, most // unit // 2) * unit, np.array([0, 1])
    if not trial.admit(pair, Prompt(prompt), Demand(prompt, geometry.max_len - prompt)):
        return None
    if not trial.suspend(pair, ticket):
        return None
    full, rest = divmod(others, geometry.max_len)
    for length in [geometry.max_len] * full + [rest] * (rest > 0):
        idle = trial.idle
        if len(idle) < 3:
            return False
        if not trial.admit(np.array(idle[-1:]), Prompt(length), Demand(length, 1)):
            return False
    return trial.resume(pair, ticket)
