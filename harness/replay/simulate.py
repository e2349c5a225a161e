"""The very requests of a measured run, served by the simulated engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, open_dict

from harness.command.arguments import option_name
from harness.comparison import Config, Prepared, compose, prepare
from harness.comparison.prepared import RequestTables
from harness.comparison.variant import run_variant
from harness.errors import ConfigError
from harness.observers.token_times import TokenTimes
from harness.replay.errors import ReplayError
from harness.replay.measured import MeasuredRun
from harness.results import RunLog
from workloads.requests import FloatArray, IntArray, RequestTable

#: what a replay simulates unless told otherwise: vLLM's rules, on the family that it uses
DEFAULTS = ("+workload=trace", "workload.name=replay", "engine=chunked", "allocator=[paged]")


@dataclass(frozen=True)
class SimulatedRun:
    """The simulated side: columns of length n, in the order of the measured requests that it has.

    rows: the place of each in the measured run.  queue_s: from arrival to the step that first
    computes some of it.  itls_s: gaps between chunks, one array a request.
    """

    rows: IntArray
    arrival_s: FloatArray
    queue_s: FloatArray
    ttft_s: FloatArray
    e2e_s: FloatArray
    itls_s: list[FloatArray]
    log: RunLog

    @property
    def span_s(self) -> float:
        """Seconds from the first arrival to the last end."""
        return float((self.arrival_s + self.e2e_s).max() - self.arrival_s.min())


class _Measured(RequestTables):
    """Hands the requests of a measured run to `prepare`, in place of a trace's."""

    def __init__(self, where: str, measured: MeasuredRun) -> None:
        super().__init__()
        self._where, self._measured = where, measured

    def of(self, config: Config) -> RequestTable:
        table = request_table(self._measured)
        long = np.flatnonzero(table.prompt_tokens + table.output_tokens > config.max_len)
        if len(long) and config.workload.too_long != "skip":
            i = int(long[0])
            raise ReplayError(
                f"{self._where}: {len(long)} of {len(table)} requests are longer than the "
                f"{config.max_len} tokens that {config.model.name} is given; the first is request "
                f"{table.name(i)}: prompt {table.prompt_tokens[i]} + output "
                f"{table.output_tokens[i]}; raise engine.max_len, or leave them out of both sides "
                "with workload.too_long=skip"
            )
        return table.limit(config.max_len, "skip")


def request_table(measured: MeasuredRun) -> RequestTable:
    """The requests as a workload; each is named after its place in the measured run."""
    n = len(measured)
    open_loop = measured.arrival_s is not None and measured.concurrency is None
    return RequestTable(
        arrival_s=measured.arrival_s if open_loop else np.zeros(n),
        prompt_tokens=measured.prompt_tokens,
        output_tokens=measured.output_tokens,
        ids=[str(i) for i in range(n)],
        concurrency=measured.concurrency,
        timed=open_loop,
    )


def compose_replay(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a replay: what a run has, with the defaults of a replay."""
    given = {option_name(override) for override in overrides}
    for name in given:
        if name == "workload" or (name.startswith("workload.") and name != "workload.too_long"):
            raise ConfigError(f"{name}: the requests are those of the measured file")
    for name in ("model", "hardware"):
        if name not in given:
            raise ConfigError(f"{name}=NAME is needed: what the measured server ran")
    chosen = [each for each in DEFAULTS if each.lstrip("+").partition("=")[0] not in given]
    return compose(*chosen, *overrides)


def prepare_replay(where: str, measured: MeasuredRun, composed: DictConfig) -> Prepared:
    """Check everything before the run.  Raises `InputError` of one line."""
    with open_dict(composed):
        composed.workload.path = Path(where).name
    if composed.executor.name != "simulated":
        raise ConfigError("a replay is simulated: leave out executor=model")
    if composed.sampling.mode not in ("greedy", "speculative"):
        raise ConfigError(
            f"sampling.mode={composed.sampling.mode}: a measured request is one sequence; expected "
            "greedy or speculative"
        )
    prepared = prepare(composed, _Measured(where, measured))
    names = list(prepared.config.allocators)
    if len(names) != 1:
        raise ConfigError(f"a replay simulates one allocator, got {', '.join(names)}")
    return prepared


def simulate(prepared: Prepared) -> SimulatedRun:
    """Serve the requests.  Raises ReplayError where the allocator cannot."""
    (name,) = prepared.config.allocators
    tokens = TokenTimes(len(prepared.requests))
    row, log = run_variant(prepared, name, observers=[tokens])
    if log is None:
        raise ReplayError(f"{name}: {row.status}: {row.reason}")
    columns: dict[str, Any] = log.requests
    arrival_s = columns["arrival_s"]
    return SimulatedRun(
        rows=columns["id"].astype(np.int64),
        arrival_s=arrival_s,
        queue_s=columns["first_scheduled_s"] - arrival_s,
        ttft_s=columns["first_token_s"] - arrival_s,
        e2e_s=columns["finish_s"] - arrival_s,
        itls_s=tokens.gaps_of_requests(),
        log=log,
    )
