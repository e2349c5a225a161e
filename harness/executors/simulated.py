"""The simulated executor: a cost model says how long each step takes, nothing is computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from allocators.base import (
    BLOCK_TABLE_ENTRY_BYTES,
    NO_COPIES,
    NO_SWAPS,
    Allocator,
    Grant,
    IntArray,
)
from harness.cost import CostModel, Work
from harness.cost.roofline import FloatArray
from harness.engine.plan import Plan


class SimulatedExecutor:
    """Prices plans.  `skips` says that several steps may be run in one go."""

    skips = True

    def __init__(self, cost: CostModel, allocator: Allocator, draft_cost: float = 0.0) -> None:
        self._cost = cost
        self._allocator = allocator
        self._draft_cost = draft_cost
        self._paged = allocator.block_tables
        self._page_tokens = allocator.geometry.page_tokens

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Return the seconds that one step of the plan takes.

        `lengths` are the slots that the decoding (and padding) rows fill, the new token included.
        """
        work = Work(paged=self._paged)
        blocking = ahead = 0.0
        for grant in plan.all_grants:
            blocking, ahead = self._add(grant, blocking, ahead)
        new, past, longest, rows = [], [], int(lengths.max(initial=0)), len(lengths)
        for prefill in plan.prefills:
            hit, n = prefill.grant.cached_tokens, prefill.group.sequences
            new.append(prefill.prompt_tokens - hit)
            past.append(hit)
            if prefill.private_tokens:
                new += [prefill.private_tokens] * n
                past += [prefill.prompt_tokens] * n
            longest = max(longest, prefill.prompt_tokens + prefill.private_tokens)
            rows += n
        work.sampled = rows
        for chunk in plan.chunks:
            new.append(chunk.new_tokens)
            past.append(chunk.past_tokens)
            longest = max(longest, chunk.past_tokens + chunk.new_tokens)
            rows += 1
            work.sampled += chunk.sampled_tokens
        work.prefill_new = np.array(new, dtype=np.int64)
        work.prefill_past = np.array(past, dtype=np.int64)
        work.decode_seqs, work.decode_context_tokens = len(lengths), int(lengths.sum())
        work.table_bytes = self._table_bytes(rows, longest)
        compute = self._cost.step_s(work)
        if plan.draft_steps:
            # The draft model decodes the same sequences, one token after the other.
            decode = Work(
                decode_seqs=rows,
                decode_context_tokens=int(work.prefill_past.sum()) + rows,
                sampled=rows,
                paged=self._paged,
            )
            compute += plan.draft_steps * self._draft_cost * self._cost.step_s(decode)
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
            tables = len(lengths) * -(-longest // self._page_tokens) * BLOCK_TABLE_ENTRY_BYTES
        seconds = self._cost.decode_window_s(
            len(lengths), int(lengths.sum()), steps, tables, self._paged
        )
        seconds[0] = blocking + max(float(seconds[0]), ahead)
        return seconds

    def map_s(self, grant: Grant) -> float:
        """Return the seconds that the grant's maps and unmaps take, hidden ones included."""
        maps_only = replace(grant, copies=NO_COPIES, swaps_out=NO_SWAPS, swaps_in=NO_SWAPS)
        return sum(self._cost.grant_s(maps_only, self._allocator))

    def _add(self, grant: Grant, blocking: float, ahead: float) -> tuple[float, float]:
        now, beside = self._cost.grant_s(grant, self._allocator)
        return blocking + now, ahead + beside

    def _table_bytes(self, rows: int, longest: int) -> int:
        """Return the bytes of a rectangular block table, as wide as its longest row."""
        return (
            rows * -(-longest // self._page_tokens) * BLOCK_TABLE_ENTRY_BYTES if self._paged else 0
        )
