"""The simulated executor: a cost model says how long each step takes, nothing is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from allocators.base import (
    BLOCK_TABLE_ENTRY_BYTES,
    NO_COPIES,
    NO_SWAPS,
    Allocator,
    Grant,
    IntArray,
)
from harness.cost import CostModel, Roofline, Work, flat
from harness.cost.curves import FloatArray
from harness.cost.flat import FlatPrices
from harness.engine.compiled.clock import CLOCKS
from harness.engine.plan import Plan

CLOCKS[FlatPrices] = flat

Tokens = TypeVar("Tokens", int, IntArray)


class SimulatedExecutor:
    """Prices plans.  A draft model's step takes `draft_cost` of a decode step of the model."""

    skips = True

    def __init__(self, cost: CostModel, allocator: Allocator, draft_cost: float = 0.0) -> None:
        self._cost = cost
        self._allocator = allocator
        self._draft_cost = draft_cost
        self._block_tokens = allocator.geometry.page_tokens if allocator.block_tables else 0

    def prices(self) -> FlatPrices | None:
        """Return the clock's constants for a compiled loop; None where it has no such formula."""
        if type(self) is not SimulatedExecutor or type(self._cost) is not Roofline:
            return None
        return self._cost.flatten(self._allocator)

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Return the seconds that one step of the plan takes.

        `lengths` are the slots that the decoding (and padding) rows fill, the new token included.
        """
        blocking_s, beside_s = self._grants_s(plan.blocking_grants), self._grants_s([plan.beside])
        work = self._work(plan, lengths)
        compute_s = self._cost.step_s(work)
        if plan.draft_steps:
            compute_s += plan.draft_steps * self._draft_cost * self._draft_step_s(work)
        compute_s = self._cost.overlapped_s(compute_s, plan.all_grants, self._allocator)
        return blocking_s + max(compute_s, beside_s)

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> FloatArray:
        """Return the seconds of `steps` steps of pure growth, [steps].

        `lengths` are those of the first step; only it executes `grants`.
        """
        tables_bytes = self._table_bytes(len(lengths), int(lengths.max()) + np.arange(steps))
        seconds = self._cost.decode_window_s(
            len(lengths), int(lengths.sum()), steps, tables_bytes, self._block_tokens
        )
        first_s = self._cost.overlapped_s(float(seconds[0]), grants, self._allocator)
        seconds[0] = self._grants_s(grants) + first_s
        return seconds

    def map_s(self, grant: Grant) -> float:
        """Return the seconds that the grant's maps and unmaps take, hidden ones included."""
        maps_only = replace(grant, copies=NO_COPIES, swaps_out=NO_SWAPS, swaps_in=NO_SWAPS)
        return self._cost.grant_s(maps_only, self._allocator)

    def _grants_s(self, grants: list[Grant]) -> float:
        """Return the seconds of these grants, one after the other."""
        return sum((self._cost.grant_s(grant, self._allocator) for grant in grants), 0.0)

    def _work(self, plan: Plan, lengths: IntArray) -> Work:
        """Return what a step of the plan computes: pieces of prompts, and rows that decode."""
        new, past = [], []
        rows = sampled = len(lengths)
        longest = int(lengths.max(initial=0))
        for prefill in plan.prefills:
            hit, n = prefill.grant.cached_tokens, prefill.group.sequences
            new.append(prefill.prompt_tokens - hit)
            past.append(hit)
            if prefill.private_tokens:
                new += [prefill.private_tokens] * n
                past += [prefill.prompt_tokens] * n
            longest = max(longest, prefill.prompt_tokens + prefill.private_tokens)
            rows += n
            sampled += n
        for chunk in plan.chunks:
            new.append(chunk.new_tokens)
            past.append(chunk.past_tokens)
            longest = max(longest, chunk.past_tokens + chunk.new_tokens)
            rows += 1
            sampled += chunk.sampled_tokens
        return Work(
            prefill_new=np.array(new, dtype=np.int64),
            prefill_past=np.array(past, dtype=np.int64),
            decode_seqs=len(lengths),
            decode_context_tokens=int(lengths.sum()),
            sampled=sampled,
            table_bytes=self._table_bytes(rows, longest),
            block_tokens=self._block_tokens,
        )

    def _draft_step_s(self, verified: Work) -> float:
        """Return the seconds in which the model would decode a token of each piece it verifies."""
        rows = len(verified.prefill_new)
        decode = Work(
            decode_seqs=rows,
            decode_context_tokens=int(verified.prefill_past.sum()) + rows,
            sampled=rows,
            block_tokens=self._block_tokens,
        )
        return self._cost.step_s(decode)

    def _table_bytes(self, rows: int, longest: Tokens) -> Tokens | int:
        """Return the bytes of rectangular block tables, each as wide as its longest row."""
        return (
            rows * -(-longest // self._block_tokens) * BLOCK_TABLE_ENTRY_BYTES
            if self._block_tokens
            else 0
        )
