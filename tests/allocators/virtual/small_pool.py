"""A small virtual allocator for tests, and what a step of it maps and unmaps."""

from __future__ import annotations

import numpy as np

from allocators.base import Demand, Geometry, Grant, Prompt
from allocators.virtual import Virtual

GROUP_TOKENS = 8


def pool(page_groups: int = 20, max_len: int = 64, group_tokens: int = GROUP_TOKENS, **knobs):
    """Six ranges; a page-group of one 64 KiB page a tensor holds `group_tokens`."""
    geometry = Geometry(
        capacity_tokens=page_groups * group_tokens, max_seqs=6, max_len=max_len, kv_heads=8,
        head_dim=4096 // group_tokens,
    )  # fmt: skip
    allocator = Virtual(geometry, **{"page_size": "64KiB", "background": False} | knobs)
    assert allocator.pages.num_pages == page_groups
    return allocator


def admit(allocator: Virtual, row: int, tokens: int) -> Grant | None:
    return allocator.admit(np.array([row]), Prompt(tokens), Demand(tokens, 20))


def grow(allocator: Virtual, *rows: int, n: int = 1) -> Grant | None:
    return allocator.grow(np.array(rows), n)


def end(allocator: Virtual, *rows: int) -> Grant:
    return allocator.release(np.array(rows))


def idle(allocator: Virtual, *page_groups: int) -> None:
    """Let ranges 0, 1, ... become idle with so many page-groups mapped."""
    for row, count in enumerate(page_groups):
        admit(allocator, row, count * allocator.geometry.page_tokens)
    allocator.begin_step()
    end(allocator, *range(len(page_groups)))


def places(table) -> list[tuple[int, int]]:
    """The (virtual range, page-group of it) of maps or unmaps."""
    return [(vrange, column) for vrange, column, _ in table.tolist()]
