"""Where the bytes of the virtual allocator's pool are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.base import IntArray, Usage
from allocators.page_table import ceil_div

if TYPE_CHECKING:
    from allocators.virtual.policy import Virtual

#: bytes of one page-table entry of the driver
PAGE_TABLE_ENTRY_BYTES = 8


def account(virtual: Virtual, rows: IntArray, finals: IntArray, steps: int) -> Usage:
    """Return the `usage` of the protocol.

    What a live range has mapped beyond its length is its sequence's: reserved as far as that will
    get, else internal.  What only idle ranges have mapped is cached.
    """
    pages, geometry = virtual.pages, virtual.geometry
    t, per_token, group_bytes = (
        geometry.page_tokens, geometry.bytes_per_token, virtual.shape.page_group_bytes,
    )  # fmt: skip
    ranges, lengths = virtual.range_of[rows], virtual.length[rows]
    spare, later, _ = pages.slack(ranges, lengths, finals, steps, elastic=False)
    if virtual.shape.tail_tokens:
        later = later + _later_in_tails(virtual, ranges, lengths, finals, steps)
    idle = virtual.ranges.cached
    held = pages.num_pages - len(pages.free) - idle
    if len(rows) == np.count_nonzero(virtual.active):
        written = held * t - spare
    else:
        inside = np.minimum(ceil_div(lengths, t), pages.table.shape[1]) * t - lengths
        twice, _ = pages.shared_slack(ranges, lengths, finals)
        written = pages.distinct_pages(ranges, lengths) * t - inside.sum() + twice
        written = written - len(rows) * np.arange(steps - 1, -1, -1)
    token, reserved = written * per_token, later * per_token
    in_use, cached = held * group_bytes, idle * group_bytes
    flat = np.zeros(steps, dtype=np.int64)
    tables_bytes = int(pages.count.sum()) * virtual.pages_per_group * geometry.ranks
    return Usage(
        token=token,
        reserved=reserved,
        internal=in_use - token - reserved,
        round_up=flat,
        cached=flat + cached,
        free=flat + geometry.capacity_bytes - in_use - cached,
        pages=flat + held,
        logical_pages=flat + int(pages.count[virtual.range_of[virtual.active]].sum()),
        metadata_bytes=flat + tables_bytes * PAGE_TABLE_ENTRY_BYTES,
    )


def _later_in_tails(
    virtual: Virtual, ranges: IntArray, lengths: IntArray, finals: IntArray, steps: int
) -> IntArray:
    """Return the slots behind the page-groups' whole tokens that will yet be written, [steps].

    They have memory from the moment a range has mapped all that it can.
    """
    whole = virtual.range_pages * virtual.geometry.page_tokens
    past = lengths - np.arange(steps - 1, -1, -1)[:, None]
    mapped = virtual.pages.count[ranges] == virtual.range_pages
    return (np.maximum(finals - np.maximum(past, whole), 0) * mapped).sum(axis=1)
