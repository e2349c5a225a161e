"""The simulated executor: a cost model says how long each step takes, nothing is computed."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from allocators.base import (
    BLOCK_TABLE_ENTRY_BYTES,
    EMPTY_GRANT,
    NO_COPIES,
    NO_SWAPS,
    Allocator,
    Grant,
    IntArray,
)
from harness.cost import CostModel, Roofline, Work, flat
from harness.cost.curves import FloatArray
from harness.cost.flat import NOTHING, FlatPrices, Priced
from harness.cost.grants import PricedGrant
from harness.cost.reads import decode_reads
from harness.engine.compiled.clock import CLOCKS
from harness.engine.plan import Plan

CLOCKS[FlatPrices] = flat

Tokens = TypeVar("Tokens", int, IntArray)
_NO_GRANTS = PricedGrant(0.0, 0.0, 0.0, 0.0)


class SimulatedExecutor:
    """Prices plans.  A draft model's step takes `draft_cost` of a decode step of the model."""

    skips = True

    def __init__(self, cost: CostModel, allocator: Allocator, draft_cost: float = 0.0) -> None:
        self._cost = cost
        self._allocator = allocator
        self._draft_cost = draft_cost
        self._block_tokens = allocator.geometry.page_tokens if allocator.block_tables else 0
        # what was priced last: computing, the grants before it, and the seconds with swaps beside
        # it and with maps beside it
        self._last = NOTHING, _NO_GRANTS, 0.0, 0.0

    def prices(self) -> FlatPrices | None:
        """Return the clock's constants for a compiled loop; None where it has no such formula."""
        if type(self) is not SimulatedExecutor or type(self._cost) is not Roofline:
            return None
        return self._cost.flatten(self._allocator)

    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Return the seconds that one step of the plan takes.

        `lengths` are the slots that the decoding (and padding) rows fill, the new token included.
        """
        before = self._before(plan.blocking_grants)
        beside_s = 0.0
        if plan.beside is not EMPTY_GRANT:
            beside_s = self._cost.grant_s(plan.beside, self._allocator)
        work = self._work(plan, lengths)
        priced = self._cost.step(work)
        if plan.draft_steps:
            priced = _joined(priced, plan.draft_steps * self._draft_cost, self._draft_step(work))
        busy_s = self._cost.overlapped_s(priced.seconds, plan.all_grants, self._allocator)
        whole_s = max(busy_s, beside_s)
        self._last = priced, before, busy_s, whole_s
        return before.seconds + whole_s

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> FloatArray:
        """Return the seconds of `steps` steps of pure growth, [steps].

        `lengths` are those of the first step; only it executes `grants`.
        """
        tables_bytes = self._table_bytes(len(lengths), int(lengths.max()) + np.arange(steps))
        groups = self._cost.layer_groups
        context = decode_reads(groups, lengths, steps) if groups else int(lengths.sum())
        priced = self._cost.decode_window(
            len(lengths), context, steps, tables_bytes, self._block_tokens
        )
        if not grants:
            self._last = priced, _NO_GRANTS, priced.seconds, priced.seconds
            return priced.seconds
        before, busy_s = self._before(grants), priced.seconds.copy()
        busy_s[0] = self._cost.overlapped_s(float(busy_s[0]), grants, self._allocator)
        self._last = priced, before, busy_s, busy_s
        seconds = busy_s.copy()
        seconds[0] = before.seconds + seconds[0]
        return seconds

    @property
    def parts(self) -> tuple[float | FloatArray, ...]:
        """The seconds of each of `PARTS`, of what was priced last; see `Explains`."""
        (seconds, linear_s, attention_s, all_reduce_s), before, busy_s, whole_s = self._last
        software_s = seconds - linear_s - attention_s - all_reduce_s
        swaps_s, maps_s = busy_s - seconds, whole_s - busy_s
        if not isinstance(seconds, np.ndarray):
            # The last bit of a difference may be below nothing.
            software_s, copies_s = max(software_s, 0.0), before.copies_s
            swaps_s += before.swaps_s
            maps_s += before.maps_s
        else:
            software_s, copies_s = np.maximum(software_s, 0.0), np.zeros(len(seconds))
            copies_s[0] = before.copies_s
            swaps_s[0] += before.swaps_s
            maps_s[0] += before.maps_s
        return linear_s, attention_s, all_reduce_s, software_s, copies_s, swaps_s, maps_s

    def map_s(self, grant: Grant) -> float:
        """Return the seconds that the grant's maps and unmaps take, hidden ones included."""
        maps_only = replace(grant, copies=NO_COPIES, swaps_out=NO_SWAPS, swaps_in=NO_SWAPS)
        return self._cost.grant_s(maps_only, self._allocator)

    def _before(self, grants: list[Grant]) -> PricedGrant:
        """Return what these grants take, one after the other."""
        before = _NO_GRANTS
        for grant in grants:  # `sum` adds otherwise from Python 3.12 on
            priced = self._cost.grant(grant, self._allocator)
            before = PricedGrant(*map(operator.add, before, priced))
        return before

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
            decode_context_tokens=self._context(lengths),
            sampled=sampled,
            table_bytes=self._table_bytes(rows, longest),
            block_tokens=self._block_tokens,
        )

    def _draft_step(self, verified: Work) -> Priced:
        """Return what it takes the model to decode a token of each piece that it verifies."""
        rows = len(verified.prefill_new)
        decode = Work(
            decode_seqs=rows,
            decode_context_tokens=self._context(verified.prefill_past + 1),
            sampled=rows,
            block_tokens=self._block_tokens,
        )
        return self._cost.step(decode)

    def _context(self, lengths: IntArray) -> int | IntArray:
        """Return what these rows read for their last token: slots, by layer group if any."""
        groups = self._cost.layer_groups
        return decode_reads(groups, lengths)[:, 0] if groups else int(lengths.sum())

    def _table_bytes(self, rows: int, longest: Tokens) -> Tokens | int:
        """Return the bytes of rectangular block tables, each as wide as its longest row."""
        return rows * self._allocator.table_entries(longest) * BLOCK_TABLE_ENTRY_BYTES


def _joined(step: Priced, times: float, draft: Priced) -> Priced:
    """Return what a step takes with that of a draft, so many times, before it."""
    return Priced(*(a + times * b for a, b in zip(step, draft, strict=True)))
