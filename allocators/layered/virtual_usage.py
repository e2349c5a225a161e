"""Where the bytes of a virtual policy's pool are, with layer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.base import IntArray, Usage
from allocators.layered.account import Slots, together

if TYPE_CHECKING:
    from allocators.layered.virtual import LayeredVirtual

#: bytes that describe one driver page to the device (a page-table entry)
PAGE_TABLE_ENTRY_BYTES = 8


def account(virtual: LayeredVirtual, rows: IntArray, finals: IntArray, steps: int) -> Usage:
    """Return the `usage` of the protocol.

    What a live range has mapped beyond its length is its sequence's: reserved as far as that will
    get, else internal.  What is mapped behind a window is expired, and what only idle ranges have
    mapped is cached.
    """
    tables, driver = virtual.tables, virtual.driver
    if steps == 1 and tables.is_shared:
        groups, lengths = virtual.geometry.layer_groups, virtual.length[rows]
        slots = together(tables, groups, rows, lengths, virtual.first_new[rows], finals)
    else:
        slots = _alone(virtual, rows, finals, steps)
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


def _alone(virtual: LayeredVirtual, rows: IntArray, finals: IntArray, steps: int) -> Slots:
    """Count the slots of rows that share nothing; all that is mapped was so in all the steps."""
    tables = virtual.tables
    past = virtual.length[rows] - np.arange(steps - 1, -1, -1)[:, None]
    queries = virtual.first_new[rows][None, :] if steps == 1 else past - 1
    token = np.zeros(steps, dtype=np.int64)
    reserved, expired = np.zeros_like(token), np.zeros_like(token)
    for index, kind in enumerate(virtual.geometry.layer_groups):
        if not kind.grows:
            token += kind.slots(past).sum(axis=1) * kind.slot_bytes
            continue
        t = tables.shapes.tables[index].page_tokens
        gone, room = tables.gone[index, rows] * t, tables.count[index, rows] * t - past
        first = kind.first_read(queries)
        later = np.minimum(np.maximum(finals - past, 0), room)
        token += (past - first).sum(axis=1) * kind.slot_bytes
        expired += (first - gone).sum(axis=1) * kind.slot_bytes
        reserved += later.sum(axis=1) * kind.slot_bytes
    return Slots(token, reserved, expired)
