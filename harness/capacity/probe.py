"""One run: a variant at a rate, with the requests of a seed; and what was seen of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from harness.capacity.question import Variant, composed_of
from harness.capacity.watch import Diverged, Watch, counted
from harness.comparison.config import Config, run_options, to_config
from harness.comparison.key import options_key
from harness.comparison.prepared import Prepared, RequestTables, prepared_of
from harness.comparison.variant import Served, stream_variant
from harness.results import ResultRow
from harness.results.runlog import Columns
from harness.results.slo import SloSpec, good
from harness.results.summary import Summary

#: runs of one allocator that a question takes at least, and requests beyond which they are worth
#: compiling a loop for
RUNS, COMPILED_REQUESTS = 25, 33_000
#: rows of a block: how often the queue is looked at
BLOCK_ROWS = 4096
#: what changes when an observation means something else: kept ones are then not read
VERSION = 2
#: metrics of a run that are taken of the requests that count alone
OF_REQUESTS = ("ttft_", "tpot_", "e2e_", "normalized_latency_", "good_share")
_ON = "engine.compiled=on:"


@dataclass(frozen=True)
class Probe:
    """A run to be made.

    rate: `workload.rate`, a second; None: all at once.  seed: lengths, gaps and draws.
    requests: how many; None: as many as the workload has.  whole: it is never stopped early.
    """

    variant: Variant
    rate: float | None
    seed: int
    requests: int | None = None
    whole: bool = False

    def options(self) -> dict[str, Any]:
        """Return the configuration of the run as plain data."""
        options = _plain(self.variant)
        return {**options, "seed": self.seed, "workload": {**options["workload"], **self._own()}}

    def prepared(self, tables: RequestTables | None = None) -> Prepared:
        """Return what the run starts from.  Raises `ConfigError` for what cannot be run."""
        config = copy.deepcopy(_typed(self.variant))
        config.seed = self.seed
        for name, value in self._own().items():
            setattr(config.workload, name, value)
        return prepared_of(config, self.options(), tables)

    def key(self) -> str:
        """Return the hash of the configuration and the code that runs it."""
        return f"{options_key(self.options())}-{VERSION}{'-whole' * self.whole}"

    def _own(self) -> dict[str, Any]:
        """Return the options of the workload that are not the variant's but the run's."""
        found: dict[str, Any] = {"rate": math.inf if self.rate is None else float(self.rate)}
        if self.variant.own_times and self.rate is not None:
            found["arrivals"] = "trace"
        if self.requests is not None:
            found["num_requests"] = self.requests
        return found


# A question makes hundreds of runs of a variant: it is composed once, and typed once a process.
@lru_cache(maxsize=1024)
def _plain(variant: Variant) -> dict[str, Any]:
    """Return what runs of a variant depend on but for what is each one's own."""
    options = run_options(composed_of(variant.options))
    return {**options, "allocators": {variant.allocator: options["allocators"][variant.allocator]}}


@lru_cache(maxsize=64)
def _typed(variant: Variant) -> Config:
    """Return the typed configuration of a variant, of which a copy is changed."""
    config = to_config(composed_of(variant.options))
    config.allocators = {variant.allocator: config.allocators[variant.allocator]}
    return config


@dataclass(frozen=True)
class Observation:
    """What a run showed.

    status, reason: as of a `ResultRow`; nothing else counts unless the status is `ok`.
    diverges: the queue grew as long as requests arrived; stopped: so the run was ended early.
    requests: how many the run had; first, counted: those that `metrics` are of, from the first on.
    metrics: those of docs/metrics.md; none of a run that was stopped. Latencies and `good_share`
        are of the requests that count, rates of what ended while they came (see `_rates`), all
        others, gaps between tokens too, of the whole run.
    """

    rate: float | None
    seed: int
    status: str
    reason: str | None = None
    diverges: bool = False
    stopped: bool = False
    requests: int = 0
    first: int = 0
    counted: int = 0
    metrics: Mapping[str, float | int | None] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)


@cache
def _tables() -> RequestTables:
    return RequestTables()


@cache
def _uncompiled() -> set[tuple[tuple[str, ...], str]]:
    """Variants that no compiled loop serves, as far as this process knows."""
    return set()


def observe(probe: Probe) -> Observation:
    """Make a run.  Raises `ConfigError` for what cannot be run at all."""
    prepared = probe.prepared(_tables())
    chosen = prepared.config.engine.compiled
    known = (probe.variant.options, probe.variant.allocator)
    if (
        chosen == "auto"
        and known not in _uncompiled()
        and RUNS * len(prepared.requests) >= COMPILED_REQUESTS
    ):
        prepared.config.engine.compiled = "on"
    watch = _watch(probe, prepared)
    served = _served(prepared, probe.variant.allocator, watch)
    if (served.row.reason or "").startswith(_ON) and chosen == "auto":
        _uncompiled().add(known)
        prepared.config.engine.compiled = "off"
        watch = _watch(probe, prepared)
        served = _served(prepared, probe.variant.allocator, watch)
    return _observation(probe, served, watch, prepared)


def _watch(probe: Probe, prepared: Prepared) -> Watch:
    rate = math.inf if probe.rate is None else probe.rate
    return Watch(prepared.requests, rate, stops=not probe.whole)


def _served(prepared: Prepared, allocator: str, watch: Watch) -> Served:
    try:
        return stream_variant(prepared, allocator, [watch], block_rows=BLOCK_ROWS)
    except Diverged:  # with HYDRA_FULL_ERROR nothing is turned into a row
        return Served(ResultRow(allocator, "error"))


def _observation(probe: Probe, served: Served, watch: Watch, prepared: Prepared) -> Observation:
    row, requests, slo = served.row, len(prepared.requests), prepared.config.slo
    if not row.ok and not watch.stopped:
        return Observation(probe.rate, probe.seed, row.status, row.reason, requests=requests)
    if watch.stopped:
        return Observation(
            probe.rate, probe.seed, "ok", diverges=True, stopped=True, requests=requests
        )
    columns = watch.ended()
    window = counted(columns)
    return Observation(
        probe.rate,
        probe.seed,
        "ok",
        diverges=watch.diverges(),
        requests=requests,
        first=window.start,
        counted=window.stop - window.start,
        metrics={**row.metrics, **_latencies(columns, window, slo), **_rates(columns, window, slo)},
    )


def _latencies(columns: Columns, window: slice, slo: SloSpec) -> dict[str, float | int | None]:
    summary = Summary("window", 0, slo)
    summary.requests({name: column[window] for name, column in columns.items()})
    found = summary.metrics({})
    return {name: value for name, value in found.items() if name.startswith(OF_REQUESTS)}


def _rates(columns: Columns, window: slice, slo: SloSpec) -> dict[str, float | None]:
    """Return requests and tokens a second of what ended while arrivals that count came.

    From as long after the first of them as one stays on average: before, those end that came
    before it, or in a run that has no warm-up none.
    """
    arrivals, ends = columns["arrival_s"], columns["finish_s"]
    if window.stop - window.start < 2:
        return {}
    first_s, stop_s = float(arrivals[window].min()), float(arrivals.max())
    stay_s = float((ends - arrivals)[window].mean())
    start_s = min(first_s + stay_s, (first_s + stop_s) / 2)
    if stop_s <= first_s:  # all at once: of those in the middle, while others still wait
        start_s, stop_s = (float(value) for value in np.quantile(ends, (0.2, 0.8)))
    within = (ends > start_s) & (ends <= stop_s)
    outputs = (columns["output_tokens"] * columns["sequences"])[within].sum()
    prompts = columns["prompt_tokens"][within].sum()
    length_s = stop_s - start_s
    if length_s <= 0:
        return {}
    good_per_s = float((good(columns, slo) & within).sum() / length_s) if slo.limits else None
    return {
        "requests_per_s": float(within.sum() / length_s),
        "goodput_requests_per_s": good_per_s,
        "output_tokens_per_s": float(outputs / length_s),
        "total_tokens_per_s": float((prompts + outputs) / length_s),
    }
