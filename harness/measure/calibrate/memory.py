"""Times of what a grant asks of memory: copies, swaps, maps; and of sending a block table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from allocators.base import Geometry, Grant, NeverFits, Unsupported
from allocators.virtual import PAGE_BYTES, Virtual
from harness.measure.calibrate.grids import Grid
from harness.measure.rounds import Rounds, Sampled
from kernels.memory import Backing, backing_for
from kernels.memory.host_space import HostSpace

Table = dict[str, Any]
#: page-groups mapped by one sample
GROUPS = 4


def copies(rounds: Rounds, grid: Grid, memory: Backing) -> Table:
    """Copy slots of all layers within the pool, in pages as copy-on-write does."""
    geometry = memory.geometry

    def point(tokens: int) -> Sampled:
        page = min(geometry.page_tokens, tokens)
        starts = np.arange(0, tokens, page)
        lengths = np.minimum(page, tokens - starts)
        grant = Grant(copies=np.column_stack([starts, starts + tokens, lengths]))
        return rounds.call(lambda: memory.copy(grant))

    return _by_bytes(geometry, [n for n in grid.moved if 2 * n <= geometry.capacity_tokens], point)


def swaps(rounds: Rounds, grid: Grid, memory: Backing) -> tuple[Table, Table]:
    """Move slots of all layers to host memory, and back."""
    geometry = memory.geometry
    host = HostSpace(memory)

    def point(tokens: int, out: bool) -> Sampled:
        rows = np.array([[0, 0, tokens]], dtype=np.int64)
        grant = Grant(swaps_out=rows) if out else Grant(swaps_in=rows)
        return rounds.call(lambda: host.save(grant) if out else host.fetch(grant))

    tokens = [n for n in grid.moved if n <= min(geometry.capacity_tokens, geometry.host_tokens)]
    swap_out = _by_bytes(geometry, tokens, lambda n: point(n, True))
    return swap_out, _by_bytes(geometry, tokens, lambda n: point(n, False))


def tables(rounds: Rounds, grid: Grid) -> Table:
    """Send a block table of 32-bit numbers to the device."""
    device = rounds.timer.device

    def point(size: int) -> Sampled:
        table = np.zeros(max(1, size // 4), dtype=np.int64)
        return rounds.call(lambda: torch.as_tensor(table.astype(np.int32), device=device))

    return {"bytes": list(grid.table), "seconds": [point(n) for n in grid.table]}


def calls(
    rounds: Rounds, grid: Grid, geometry: Geometry, dtype: torch.dtype
) -> tuple[Table, Table, list[Backing]]:
    """Map and unmap page-groups, physical memory made and given back with them.

    Returns the two tables and the backings to close.  A page size that this device cannot map is
    left out; with none left, the tables say why.
    """
    device = rounds.timer.device
    sizes: list[int] = []
    maps: list[Sampled] = []
    unmaps: list[Sampled] = []
    backings: list[Backing] = []
    reasons: list[str] = []
    for name in grid.page_sizes:
        size = PAGE_BYTES[name]
        group = 2 * geometry.layers * size
        room = replace(
            geometry,
            capacity_tokens=-(-GROUPS * group // geometry.bytes_per_token),
            max_seqs=GROUPS,
            page_tokens=1,
        )
        try:
            allocator = Virtual(room, page_size=name)
            memory = backing_for(allocator, dtype=dtype, device=device, background=False)
        except (Unsupported, NeverFits) as error:
            reasons.append(str(error))
            continue
        backings.append(memory)
        rows = np.array([[row, 0, row] for row in range(GROUPS)], dtype=np.int64)
        drivers = GROUPS * allocator.pages_per_group
        sizes.append(size)
        maps.append(rounds.add(_timed(rounds, memory, rows, drivers, "maps")))
        unmaps.append(rounds.add(_timed(rounds, memory, rows, drivers, "unmaps")))
    reason = "" if sizes else "; ".join(dict.fromkeys(reasons))
    return (
        {"page_bytes": sizes, "seconds": maps, "reason": reason},
        {"page_bytes": sizes, "seconds": unmaps, "reason": reason},
        backings,
    )


def _timed(
    rounds: Rounds, memory: Backing, rows: np.ndarray, drivers: int, what: str
) -> Callable[[], float]:
    """Return what maps and unmaps page-groups; it returns the seconds of `what` a driver call."""
    timer, grants = rounds.timer, {"maps": Grant(maps=rows), "unmaps": Grant(unmaps=rows)}

    def sample() -> float:
        seconds = {name: timer.call_s(partial(memory.map, g), 1) for name, g in grants.items()}
        return seconds[what] / drivers

    return sample


def _by_bytes(geometry: Geometry, tokens: list[int], point: Callable[[int], Sampled]) -> Table:
    sizes = [n * geometry.bytes_per_token for n in tokens]
    return {"bytes": sizes, "seconds": [point(n) for n in tokens]}
