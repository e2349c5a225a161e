"""Where the bytes of a virtual policy's pool are, with layer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.base import IntArray, Usage
from allocators.layered.account import Rows, alone, together
from allocators.rules.virtual import PAGE_TABLE_ENTRY_BYTES

if TYPE_CHECKING:
    from allocators.layered.virtual import LayeredVirtual


def account(virtual: LayeredVirtual, rows: IntArray, finals: IntArray, steps: int) -> Usage:
    """Return the `usage` of the protocol.

    What a live range has mapped beyond its length is its sequence's: reserved as far as that will
    get, else internal.  What is mapped behind a window is expired, and what only idle ranges have
    mapped is cached.
    """
    tables, driver = virtual.tables, virtual.driver
    of = Rows.of(virtual, rows, finals, steps)._replace(elastic=False)
    slots = together(of) if tables.is_shared else alone(of)
    flat = np.zeros(steps, dtype=np.int64)
    cached = flat + virtual.cached_pages * driver.unit_bytes
    units = driver.total * driver.chunks.parts - driver.chunks.units_free
    held = units * driver.unit_bytes
    used = flat + int((driver.sizes - driver.free()).sum())
    mapped = int(((tables.count - tables.gone) * driver.of_group[:, None]).sum())
    return Usage(
        token=slots.token,
        reserved=slots.reserved,
        internal=held - cached - slots.token - slots.reserved - slots.expired,
        round_up=flat,
        cached=cached,
        free=flat + virtual.geometry.capacity_bytes - held,
        pages=used,
        logical_pages=flat + tables.entries,
        metadata_bytes=flat + mapped * virtual.geometry.ranks * PAGE_TABLE_ENTRY_BYTES,
        expired=slots.expired,
    )
