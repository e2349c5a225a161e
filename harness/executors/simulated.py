"""The simulated executor: a cost model says how long each step takes, nothing is computed."""

from __future__ import annotations

import numpy as np

from allocators.base import Allocator, Grant, IntArray
from harness.cost.roofline import FloatArray, Roofline, Work
from harness.engine.scheduler import Plan

#: bytes of one block-table entry on the device (a 32-bit block number)
ENTRY_BYTES = 4


class SimulatedExecutor:
    """Prices plans.  `skips` says that several steps may be run in one go."""

    skips = True

    def __init__(self, cost: Roofline, allocator: Allocator) -> None:
        self._cost = cost
        self._allocator = allocator
        self._paged = allocator.block_tables
        self._page_tokens = allocator.geometry.page_tokens

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Return the seconds that one step of the plan takes.

        `lengths` are the slots that the decoding (and padding) rows fill, the new token included.
        """
        work = Work(paged=self._paged)
        blocking = ahead = 0.0
        for grant in plan.grants:
            blocking, ahead = self._add(grant, blocking, ahead)
        if plan.prefills:
            new, past, longest, rows = [], [], 0, 0
            for prefill in plan.prefills:
                blocking, ahead = self._add(prefill.grant, blocking, ahead)
                hit, n = prefill.grant.cached_tokens, prefill.group.sequences
                new.append(prefill.prompt_tokens - hit)
                past.append(hit)
                if prefill.private_tokens:
                    new += [prefill.private_tokens] * n
                    past += [prefill.prompt_tokens] * n
                longest = max(longest, prefill.prompt_tokens + prefill.private_tokens)
                rows += n
            work.prefill_new, work.prefill_past = np.array(new), np.array(past)
            work.sampled = rows
            work.table_bytes = self._table_bytes(rows, longest)
        else:
            work.decode_seqs = work.sampled = len(lengths)
            work.decode_context_tokens = int(lengths.sum())
            work.table_bytes = self._table_bytes(len(lengths), int(lengths.max()))
        compute = self._cost.step_s(work)
        return blocking + max(compute, ahead)

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> FloatArray:
        """Return the seconds of `steps` steps of pure growth, [steps].

        `lengths` are those of the first step; only it executes `grants`.
        """
        blocking = ahead = 0.0
        for grant in grants:
            blocking, ahead = self._add(grant, blocking, ahead)
        tables: IntArray | int = 0
        if self._paged:
            longest = int(lengths.max()) + np.arange(steps)
            tables = len(lengths) * -(-longest // self._page_tokens) * ENTRY_BYTES
        seconds = self._cost.decode_window_s(
            len(lengths), int(lengths.sum()), steps, tables, self._paged
        )
        seconds[0] = blocking + max(float(seconds[0]), ahead)
        return seconds

    def _add(self, grant: Grant, blocking: float, ahead: float) -> tuple[float, float]:
        now, beside = self._cost.grant_s(grant, self._allocator)
        return blocking + now, ahead + beside

    def _table_bytes(self, rows: int, longest: int) -> int:
        """Return the bytes of a rectangular block table, as wide as its longest row."""
        return rows * -(-longest // self._page_tokens) * ENTRY_BYTES if self._paged else 0
