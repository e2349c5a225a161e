"""Times of what a grant asks of memory: copies, swaps, maps; and of sending a block table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from allocators.base import Geometry, Grant, NeverFits, Unsupported
from allocators.virtual import PAGE_BYTES, Virtual
from harness.cost.calibration import CALLS
from harness.measure.calibrate.grids import Grid
from harness.measure.rounds import Rounds, Table
from kernels.memory import Backing, backing_for
from kernels.memory.host_space import HostSpace

#: page-groups mapped by one sample
GROUPS = 4


def moves(rounds: Rounds, grid: Grid, memory: Backing) -> dict[str, Table]:
    """Move slots of all layers: copied within the pool, to host memory, and back."""
    geometry, host = memory.geometry, HostSpace(memory)

    def copy(tokens: int) -> Callable[[], Any]:
        # In pages, as copy-on-write does.
        page = min(geometry.page_tokens, tokens)
        starts = np.arange(0, tokens, page)
        lengths = np.minimum(page, tokens - starts)
        return partial(memory.copy, Grant(copies=np.stack([starts, starts + tokens, lengths], 1)))

    def save(tokens: int) -> Callable[[], Any]:
        return partial(host.save, Grant(swaps_out=np.array([[0, 0, tokens]])))

    def fetch(tokens: int) -> Callable[[], Any]:
        return partial(host.fetch, Grant(swaps_in=np.array([[0, 0, tokens]])))

    def table(most_tokens: int, work: Callable[[int], Callable[[], Any]]) -> Table:
        token_bytes = geometry.bytes_per_token
        sizes = [tokens * token_bytes for tokens in grid.moved if tokens <= most_tokens]
        return rounds.table("bytes", sizes, lambda size: work(size // token_bytes))

    swapped = min(geometry.capacity_tokens, geometry.host_tokens)
    return {
        "copy": table(geometry.capacity_tokens // 2, copy),
        "swap_out": table(swapped, save),
        "swap_in": table(swapped, fetch),
    }


def block_tables(rounds: Rounds, grid: Grid) -> Table:
    """Take a block table from the allocator's, check it, and send its 32-bit numbers.

    What a step does for each entry (`kernels.rows.place`); what it does for each row is overhead.
    """
    device = rounds.timer.device

    def send(size: int) -> Callable[[], Any]:
        kept, row = np.zeros((1, max(1, size // 4)), dtype=np.int64), np.zeros(1, dtype=np.int64)

        def work() -> torch.Tensor:
            table = np.clip(kept[row], 0, None)
            assert table.max() == 0
            return torch.as_tensor(table.astype(np.int32), device=device)

        return work

    return rounds.table("bytes", grid.table, send)


def maps(
    rounds: Rounds,
    grid: Grid,
    geometry: Geometry,
    dtype: torch.dtype,
    handles: str,
    held: ExitStack,
) -> dict[str, Table]:
    """Map and unmap page-groups as a run does: with `handles` on_demand, memory is made with them.

    `held` closes the backings.  A page size that this device cannot map is left out; with none
    left, the tables say why.
    """
    reasons: list[str] = []
    tables: dict[str, Table] = {name: {"page_bytes": [], "seconds": []} for name in CALLS}
    for name in grid.page_sizes:
        size = PAGE_BYTES[name]
        group_bytes = 2 * geometry.layers * size
        room = replace(
            geometry,
            capacity_tokens=-(-GROUPS * group_bytes // geometry.bytes_per_token),
            max_seqs=GROUPS,
            page_tokens=1,
        )
        try:
            allocator = Virtual(room, page_size=name)
            memory = backing_for(
                allocator,
                dtype=dtype,
                device=rounds.timer.device,
                handles=handles,
                background=False,
            )
        except (Unsupported, NeverFits) as error:
            reasons.append(str(error))
            continue
        held.enter_context(memory)
        for call, table in tables.items():
            table["page_bytes"].append(size)
            table["seconds"].append(
                rounds.add(partial(_call_s, rounds, memory, allocator.pages_per_group, call))
            )
    reason = "" if tables["map"]["page_bytes"] else "; ".join(dict.fromkeys(reasons))
    return {name: {**table, "reason": reason} for name, table in tables.items()}


def _call_s(rounds: Rounds, memory: Backing, pages: int, call: str) -> float:
    """Map and unmap `GROUPS` page-groups; return the seconds of one driver call of that name."""
    rows = np.array([[row, 0, row] for row in range(GROUPS)])
    taken_s = {
        "map": rounds.timer.call_s(partial(memory.map, Grant(maps=rows)), 1),
        "unmap": rounds.timer.call_s(partial(memory.map, Grant(unmaps=rows)), 1),
    }
    return taken_s[call] / (GROUPS * pages)
