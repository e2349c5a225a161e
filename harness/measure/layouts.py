"""Where the rows of a measured batch lie in memory: in pages without any order, or side by side."""

from __future__ import annotations

import numpy as np

from allocators.base import BlockTable, IntArray, Strided


def shuffled(lengths: IntArray, page_tokens: int, order: IntArray) -> BlockTable:
    """Give each row its pages in `order`, as a pool in use has them; -1 stands behind its end."""
    pages = -(-lengths // page_tokens)
    table = np.full((len(lengths), int(pages.max())), -1, dtype=np.int64)
    for row, (count, first) in enumerate(zip(pages, np.cumsum(pages) - pages, strict=True)):
        table[row, :count] = order[first : first + count]
    return BlockTable(page_tokens, table, lengths)


def side_by_side(lengths: IntArray, page_tokens: int = 1) -> Strided:
    """Give each row an extent of its own, in whole pages."""
    extents = -(-lengths // page_tokens) * page_tokens
    return Strided(np.cumsum(extents) - extents, lengths)
