"""Where the bytes of the virtual allocator's pool are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from allocators.base import IntArray, Usage
from allocators.page_table import ceil_div
from allocators.rules import virtual as rules
from allocators.rules.mapping import written_in_tail

if TYPE_CHECKING:
    from allocators.virtual.policy import Virtual


def account(virtual: Virtual, rows: IntArray, finals: IntArray, steps: int) -> Usage:
    """Return the `usage` of the protocol.

    What a live range has mapped beyond its length is its sequence's: reserved as far as that will
    get, else internal.  What only idle ranges have mapped is cached.
    """
    pages, geometry = virtual.pages, virtual.geometry
    t = geometry.page_tokens
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
    flat = np.zeros(steps, dtype=np.int64)
    entries = int(pages.count.sum()) * virtual.pages_per_group * geometry.ranks
    logical = int(pages.count[virtual.range_of[virtual.active]].sum())
    account = rules.account(
        flat + held,
        written,
        later,
        flat + idle,
        flat + logical,
        flat + entries,
        virtual.shape.page_group_bytes,
        geometry.bytes_per_token,
        geometry.capacity_bytes,
    )
    return Usage(*account._replace(round_up=flat))


def _later_in_tails(
    virtual: Virtual, ranges: IntArray, lengths: IntArray, finals: IntArray, steps: int
) -> IntArray:
    """Return the slots behind the page-groups' whole tokens that will yet be written, [steps].

    They have memory from the moment a range has mapped all that it can.
    """
    past = lengths - np.arange(steps - 1, -1, -1)[:, None]
    count, t = virtual.pages.count[ranges], virtual.geometry.page_tokens
    return written_in_tail(count, past, finals, virtual.range_pages, t).sum(axis=1)
