"""Grants of policies with layer groups: rows of four numbers, the last the layer group."""

from __future__ import annotations

import numpy as np

from allocators.base import EMPTY_GRANT, NO_COPIES, NO_MAPS, Grant, IntArray
from allocators.layered.tables import Entries


def map_rows(entries: Entries) -> IntArray:
    """Return entries of tables as rows: range, page-group of it, physical page-group, table."""
    table, row, column, pages = entries
    return np.column_stack([row, column, pages, table]) if len(table) else NO_MAPS


def without(maps: IntArray, others: IntArray) -> IntArray:
    """Return the rows of `maps` that are not among `others`."""
    known = set(map(tuple, others.tolist()))
    return _table([row for row in map(tuple, maps.tolist()) if row not in known])


def join(steps: list[Grant]) -> Grant:
    """Join grants without swaps into one, without what one step maps and a later one unmaps.

    It must hold in the order unmaps, conversions, maps, copies.
    """
    steps = [step for step in steps if not step.is_empty]
    if not steps:
        return EMPTY_GRANT
    if len(steps) == 1:
        return steps[0]
    copies = [step.copies for step in steps if len(step.copies)]
    maps = [step.maps for step in steps if len(step.maps)]
    unmaps = [step.unmaps for step in steps if len(step.unmaps)]
    come, gone = _both(maps), _both(unmaps)
    if maps and unmaps:
        come, gone = _net(steps)
    return Grant(
        copies=np.concatenate(copies) if copies else NO_COPIES,
        maps=come,
        unmaps=gone,
        converted=_converted(_both([step.converted for step in steps if len(step.converted)])),
    )


def _converted(rows: IntArray) -> IntArray:
    """Return what each chunk was at first and is at last, without those that are as they were."""
    found: dict[int, tuple[int, int]] = {}
    for chunk, before, after in rows.tolist():
        found[chunk] = (found.get(chunk, (before, after))[0], after)
    return _table([(chunk, *sizes) for chunk, sizes in found.items() if sizes[0] != sizes[1]])


def _net(steps: list[Grant]) -> tuple[IntArray, IntArray]:
    maps: dict[tuple[int, ...], None] = {}
    unmaps: list[tuple[int, ...]] = []
    for step in steps:
        for row in map(tuple, step.unmaps.tolist()):
            if row in maps:
                del maps[row]
            else:
                unmaps.append(row)
        maps.update(dict.fromkeys(map(tuple, step.maps.tolist())))
    return _table(list(maps)), _table(unmaps)


def _both(tables: list[IntArray]) -> IntArray:
    return np.concatenate(tables) if tables else NO_MAPS


def _table(rows: list[tuple[int, ...]]) -> IntArray:
    return np.array(rows, dtype=np.int64) if rows else NO_MAPS
