"""What an experiment has to compute, as values that worker processes run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import active_children
from typing import Any, Protocol

from harness.cli.checks import WRONG_INPUT, explained
from harness.cli.overrides import parsed
from harness.comparison import Prepared, compose, prepare
from harness.comparison.variant import run_variant, stream_variant
from harness.errors import ConfigError
from harness.results import RunLog

#: what a task found: by allocator, by name
Found = dict[str, dict[str, Any]]


class Task(Protocol):
    """Work that can be done in another process; equal tasks are done once."""

    def run(self) -> Found:
        """Return what was found; raises `ConfigError`."""


def prepared_for(options: Iterable[str]) -> Prepared:
    """Return what a comparison with these options starts from; raises `ConfigError`."""
    lines, overrides = list(options), []
    try:
        overrides = parsed(lines)
        return prepare(compose(*lines))
    except WRONG_INPUT as error:
        raise ConfigError(explained(error, lines, overrides)) from error


@dataclass(frozen=True)
class Compare:
    """One comparison: each allocator's metrics, or `reason` where it did not run."""

    options: tuple[str, ...]

    def run(self) -> Found:
        prepared, found = prepared_for(self.options), {}
        for name in prepared.config.allocators:
            row, log = run_variant(prepared, name)
            found[name] = {**row.metrics, **self.more(log)} if log else {"reason": row.reason}
        return found

    def more(self, log: RunLog) -> dict[str, float]:
        """Return numbers beside the metrics, from the log of a run."""
        return {}


@dataclass(frozen=True)
class Sustained:
    """The highest of some rates (requests/s, rising) whose latency stays below a limit.

    The latency is the mean of end-to-end ms per output token, which rises with the rate, so that
    the rate is found by halving.  `rate` is nan where even the lowest is above the limit.
    """

    options: tuple[str, ...]
    rates: tuple[float, ...]
    below_ms: float

    def run(self) -> Found:
        prepared = prepared_for((*self.options, f"workload.rate={self.rates[0]}"))
        return {name: self._of(name) for name in prepared.config.allocators}

    def _of(self, allocator: str) -> dict[str, Any]:
        low, high = -1, len(self.rates)
        while high - low > 1:
            middle = (low + high) // 2
            point = (*self.options, f"workload.rate={self.rates[middle]}")
            row = stream_variant(prepared_for(point), allocator, []).row
            if not row.ok:
                return {"reason": row.reason}
            latency_ms = 1000 * row.metrics["normalized_latency_mean_s"]
            low, high = (middle, high) if latency_ms < self.below_ms else (low, middle)
        return {"rate": self.rates[low] if low >= 0 else float("nan")}


def run_tasks(
    tasks: Iterable[Task], workers: int | None, done: Callable[[int, int], None]
) -> dict[Task, Found]:
    """Run tasks on so many processes (None: as many as CPUs); equal ones once.

    `done` is told how many of how many have ended.  Raises `ConfigError` of the first that fails.
    """
    # Searches first: they take longest, and one process should not be left with one at the end.
    distinct = sorted(dict.fromkeys(tasks), key=lambda task: not isinstance(task, Sustained))
    found: dict[Task, Found] = {}
    pool = ProcessPoolExecutor(workers or os.cpu_count(), initializer=_ignore_interrupts)
    try:
        running = {pool.submit(task.run): task for task in distinct}
        for future in as_completed(running):
            found[running[future]] = future.result()
            done(len(found), len(distinct))
    except KeyboardInterrupt:
        for worker in active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that waits, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
