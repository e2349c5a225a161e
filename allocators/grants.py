"""Several grants that happen one after the other, as one."""

from __future__ import annotations

import numpy as np

from allocators.base import EMPTY_GRANT, Grant


def join(steps: list[Grant]) -> Grant:
    """Join grants without swaps into one; it must hold in the order unmaps, maps, copies."""
    steps = [s for s in steps if s is not EMPTY_GRANT]
    if not steps:
        return EMPTY_GRANT
    if len(steps) == 1:
        return steps[0]
    return Grant(
        copies=np.concatenate([s.copies for s in steps]),
        maps=np.concatenate([s.maps for s in steps]),
        unmaps=np.concatenate([s.unmaps for s in steps]),
    )
