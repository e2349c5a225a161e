"""Makes runs in processes beside each other, each only once, and drives searches with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.capacity.kept import Kept
from harness.capacity.probe import Observation, Probe, observe
from harness.capacity.search import Capacity, Searching
from harness.errors import InputError

#: where observations are kept unless told otherwise
KEPT = "results/runs/capacity-kept"


class Runner:
    """Runs probes on `jobs` processes (None: as many as there are CPUs), as a context.

    kept: the folder where observations are kept and looked up; None: nowhere.
    runs, kept_runs: how many were made, and how many were kept from before.

    Ctrl-C passes through as `KeyboardInterrupt`, and the processes end; what has been observed by
    then is kept.
    """

    def __init__(self, jobs: int | None = None, kept: str | Path | None = KEPT) -> None:
        self._jobs = jobs or _usable_cpus()
        self._kept = None if kept is None else Kept(Path(kept))
        self._pool: Executor | None = None
        self._seen: dict[Probe, Observation] = {}
        self._keys: dict[Probe, str] = {}
        self.runs = self.kept_runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            if kind is not None:
                for worker in active_children():
                    worker.terminate()
            pool.shutdown(cancel_futures=True)

    def observe(self, probes: Sequence[Probe]) -> list[Observation]:
        """Return an observation of each probe.  Raises `ConfigError`."""
        (found,) = self._drive([_once(probes)], lambda place, seen: None)
        return found

    def run(
        self,
        searches: Sequence[Searching],
        found: Callable[[int, Capacity], None] = lambda place, capacity: None,
    ) -> list[Capacity]:
        """Drive searches to their end, beside each other; `found` is told of each that ends.

        Raises `ConfigError` for what cannot be run at all, `InputError` where a process is killed.
        """
        return self._drive(searches, found)

    def _drive(self, searches: Sequence, found: Callable) -> list:
        results: dict[int, object] = {}
        wanted: dict[int, list[Probe]] = {}
        running: dict[Future[Observation], Probe] = {}

        def advance(place: int, observations: list[Observation] | None) -> None:
            try:
                search = searches[place]
                wanted[place] = next(search) if observations is None else search.send(observations)
            except StopIteration as stop:
                wanted.pop(place, None)
                results[place] = stop.value
                found(place, stop.value)

        for place in range(len(searches)):
            advance(place, None)
        while wanted:
            for probe in dict.fromkeys(p for probes in wanted.values() for p in probes):
                if probe not in running.values() and not self._known(probe):
                    running[self._submit(probe)] = probe
            ready = [
                place
                for place, probes in wanted.items()
                if all(probe in self._seen for probe in probes)
            ]
            for place in ready:
                advance(place, [self._seen[probe] for probe in wanted[place]])
            if not ready:
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                self._take(ended, running)
        return [results[place] for place in range(len(searches))]

    def _known(self, probe: Probe) -> bool:
        if probe in self._seen:
            return True
        if self._kept is None:
            return False
        seen = self._kept.get(self._key(probe))
        if seen is not None:
            self._seen[probe] = seen
            self.kept_runs += 1
        return seen is not None

    def _key(self, probe: Probe) -> str:
        if probe not in self._keys:
            self._keys[probe] = probe.key()
        return self._keys[probe]

    def _submit(self, probe: Probe) -> Future[Observation]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._jobs, initializer=_ignore_interrupts)
        return self._pool.submit(observe, probe)

    def _take(
        self, ended: Iterable[Future[Observation]], running: dict[Future[Observation], Probe]
    ) -> None:
        for future in ended:
            probe = running.pop(future)
            try:
                self._seen[probe] = future.result()
            except BrokenProcessPool as error:
                raise InputError(
                    f"a process that ran {probe.variant.label} was killed, perhaps for its memory; "
                    "jobs=1 runs one at a time, and what was run is kept"
                ) from error
            self.runs += 1
            if self._kept is not None and self._seen[probe].status != "error":
                self._kept.put(self._key(probe), self._seen[probe])


def _once(probes: Sequence[Probe]):  # noqa: ANN202 - a search of one step
    return (yield list(probes))


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that waits, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
