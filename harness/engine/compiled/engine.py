"""The engine over arrays: serves one table of requests in a compiled loop, block by block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np

from allocators.base import Demand, NeverFits, Prompt
from allocators.rules.families import FAMILIES
from harness.engine.compiled import state as at
from harness.engine.compiled.build import compiled, compiled_keys
from harness.engine.compiled.clock import CLOCKS, clock_of
from harness.engine.compiled.keys import KeyFeed
from harness.engine.compiled.lineages import BeamFeed
from harness.engine.compiled.state import Block, Options, State
from harness.engine.schedulers import SCHEDULERS
from harness.engine.schedulers.base import unservable
from harness.engine.setup import Setup
from harness.results.runlog import RunLog
from harness.results.stream import Sink, kept_log

#: steps of a block: how often a loop returns to Python
BLOCK_STEPS = 1 << 15


class CompiledEngine:
    """Runs every request to its end; the steps are those of `Engine`, to the bit."""

    loop = "compiled"

    def __init__(self, setup: Setup) -> None:
        """Take a run whose executor has `prices`, the constants of a clock (see `clock`).

        Raises `Unsupported` for what the policy can never serve.  That a loop can serve it at all
        is for `choice` to see.
        """
        allocator, engine, front_end = setup.allocator, setup.options, setup.front_end
        policy = SCHEDULERS[engine.policy]
        policy.check(setup)
        self._allocator, self._table = allocator, setup.requests
        self._prices, self._arrays = clock_of(setup.executor), allocator.arrays()
        family: ModuleType = FAMILIES[type(self._arrays)]
        self._serve = compiled(engine.policy, family, CLOCKS[type(self._prices)])
        self._options = Options(
            max_rows=setup.max_rows,
            width=setup.sampling.sequences,
            budget_tokens=policy.budget_tokens(setup),
            expected_tokens=engine.expected_output_tokens,
            pool_tokens=sum(allocator.balance()) * allocator.geometry.page_tokens,
            bytes_per_token=allocator.geometry.bytes_per_token,
            response_s=float(front_end.response_s),
            plans_ahead=front_end.plans_ahead,
            beside=engine.policy == "orca",
            static=engine.policy == "static",
            beams=setup.sampling.mode == "beam",
        )
        self._state = _state(setup, self._options)
        self._feed: KeyFeed | BeamFeed | None = None
        if self._options.beams:
            self._feed = BeamFeed(setup.drawn_lineage)
        elif allocator.has_prefix_index:
            order, block_tokens = self._state.requests.index, allocator.geometry.page_tokens
            self._feed = KeyFeed(setup.requests, order, block_tokens, compiled_keys())
        self._state.now[0].fed = 0 if self._feed else len(setup.requests)

    def run(self, name: str, progress: Callable[[int], None] = lambda ended: None) -> RunLog:
        """Serve all requests, and keep the log of all steps; see `serve`."""
        capacity_bytes = self._allocator.geometry.capacity_bytes
        serve = partial(self.serve, progress=progress)
        return kept_log(serve, name, capacity_bytes, self._table.name)

    def serve(
        self, sink: Sink, progress: Callable[[int], None] = lambda ended: None
    ) -> dict[str, float]:
        """Serve all requests, and return the totals of the run (see `RunLog`).

        Steps and ended requests go to `sink` in blocks; `progress` is told how many requests have
        ended so far.  Raises `Unservable` for a request that can never fit.
        """
        now = self._state.now[0]
        block = Block(
            records(BLOCK_STEPS, at.STEP),
            np.zeros(BLOCK_STEPS + self._options.max_rows, dtype=np.int64),
            records(2 * BLOCK_STEPS + self._options.max_rows, at.TOKEN_GAP),
        )
        steps = 0
        while True:
            now["steps"] = now["ended"] = now["token_gaps"] = 0
            stopped = self._serve(self._arrays, self._prices, self._options, self._state, block)
            steps = self._give(sink, block, steps)
            progress(int(now["served"]))
            if stopped == at.DONE:
                return self._totals()
            if stopped == at.UNFED:
                self._arrays = self._feed.feed(self._arrays, self._state)
            elif stopped != at.FULL:
                raise self._unservable(stopped)

    def _give(self, sink: Sink, block: Block, first_step: int) -> int:
        """Hand over a block whose first step has this number; return that of the next one."""
        now = self._state.now[0]
        taken = block.steps[: now["steps"]]
        steps = {name: taken[name] for name in at.STEP.names}
        steps["step"] = first_step + np.arange(len(taken))
        if len(taken):
            sink.steps(steps)
        gaps = block.token_gaps[: now["token_gaps"]]
        if len(gaps):
            sink.token_gaps(gaps["seconds"], gaps["count"])
        ended = self._state.requests[block.ended[: now["ended"]]]
        if len(ended):
            columns = {
                name: ended[name]
                for name in (
                    "first_scheduled_s", "first_token_s", "finish_s", "preemptions",
                    "prompt_tokens", "output_tokens", "itl_max_s",
                )
            }  # fmt: skip
            columns["request"] = ended["index"]
            columns["arrival_s"] = self._table.arrival_s[ended["index"]]
            columns["sequences"] = np.full(len(ended), self._options.width)
            sink.ended(columns)
        return first_step + len(taken)

    def _totals(self) -> dict[str, float]:
        """Return the totals of a `RunLog`; the host's time in the allocator is not measured."""
        now = self._state.now[0]
        names = ["gap_s", "gap_cached_byte_s", "looked_up_tokens", "wasted_tokens"]
        if self._allocator.pages_per_group:
            names += ["maps", "unmaps", "map_s"]
        totals = {name: float(now[name]) for name in names}
        if self._allocator.has_prefix_index:
            totals["evictions"] = float(self._arrays.pool.counts[0].evictions)
        bytes_per_token = self._options.bytes_per_token
        hit_bytes = float(int(now["all_hit_tokens"]) * bytes_per_token)
        return totals | {"swapped_bytes": 0.0, "hit_bytes": hit_bytes}

    def _unservable(self, stopped: int) -> Exception:
        """Return the error of a request that can never be served, as the step engine words it."""
        now = self._state.now[0]
        request = self._state.requests[now["stuck"]]
        prompt, output = int(request["prompt_tokens"]), int(request["output_tokens"])
        pool = f"the empty pool of {self._allocator.geometry.capacity_tokens} tokens"
        width, reason = self._options.width, f"{pool} refused it"
        if stopped == at.REFUSED_FORKED:
            reason = f"{pool} refused all its sequences"
        elif stopped == at.NEVER:
            asked = ("tokens", "whole_tokens", "private_tokens", "rows")
            tokens, whole, private, rows = (int(now[f"stuck_{name}"]) for name in asked)
            demand = Demand(prompt, output, private, width)
            try:
                self._allocator.admit(np.arange(rows), Prompt(tokens, whole_tokens=whole), demand)
            except NeverFits as error:
                reason = str(error)
        name = self._table.name(int(request["index"]))
        return unservable(name, prompt, output, width, reason)


def _state(setup: Setup, options: Options) -> State:
    """Return where a run starts."""
    table = setup.requests
    order = np.argsort(table.arrival_s, kind="stable")
    requests = records(len(order), at.REQUEST)
    requests["index"] = order
    requests["arrives_s"] = table.arrival_s[order] + setup.front_end.request_s
    requests["prompt_tokens"] = table.prompt_tokens[order]
    requests["output_tokens"] = table.output_tokens[order]
    requests["refused_alone"] = -1
    for name in ("first_scheduled_s", "first_token_s", "finish_s", "itl_max_s"):
        requests[name] = np.nan
    groups = records(options.max_rows // options.width, at.GROUP)
    # Beams of all that can run at once, and of as many behind them.
    entries = 2 * len(groups) if options.beams else 0
    steps = int(table.output_tokens.max(initial=0))
    lineage = np.zeros((entries, steps if entries else 0, options.width), dtype=np.int16)
    now = records(1, at.NOW)
    now["stuck"], now["free_beams"] = -1, entries
    columns = np.zeros((5, 2 * options.max_rows), dtype=np.int64)
    columns[at.FREE_BEAMS, :entries] = np.arange(entries)
    places = records(options.max_rows, at.PLACE)
    return State(requests, columns, groups, places, lineage, now)


def records(n: int, kind: np.dtype) -> np.recarray:
    """Return `n` records of zeros, whose fields are attributes to Python as well."""
    return np.zeros(n, dtype=kind).view(np.recarray)
