"""One comparison: the same requests through each allocator, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command.interrupts import Interrupts
from harness.comparison.prepared import Prepared
from harness.comparison.variant import Served, fault, stream_variant
from harness.observers.recorders import Recorders
from harness.observers.vllm_bench import Sent
from harness.results import ResultRow, ResultsError, RunLog, RunWriter, describe_environment
from harness.results.reader import read_whole_logs
from harness.results.stream import Consumer

if TYPE_CHECKING:
    from harness.executors.model.real_run import RealRun

#: from a variant's name and its number of requests: a context whose value is told how many of them
#: have ended
Watch = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass
class Comparison:
    """What became of each allocator, in order.

    totals: of the rows that ran, by allocator, what is summed over a whole run (see `RunLog`).
    notes: what could not be recorded, a line each.
    unsaved: why the results could not be written, if so; the directory holds what had been before.
    """

    run_dir: Path
    rows: list[ResultRow]
    interrupted: bool
    totals: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unsaved: str | None = None

    @cached_property
    def logs(self) -> list[RunLog]:
        """The logs of the rows that ran, read from the run directory: long timelines are in bins.

        Raises `ResultsError` where they cannot be read.
        """
        return read_whole_logs(self.run_dir, self.totals)

    @property
    def served(self) -> bool:
        """Whether any allocator ran."""
        return any(row.ok for row in self.rows)

    @property
    def crashed(self) -> bool:
        """Whether an allocator ended in an error, and not in a refusal."""
        return any(row.status == "error" for row in self.rows)


def run_comparison(
    prepared: Prepared,
    run_dir: str | Path,
    watch: Watch = lambda name, requests: nullcontext(lambda ended: None),
) -> Comparison:
    """Run every allocator and write the run directory; Ctrl-C keeps those that have finished.

    A disk that is full costs the files, not the rows.  Raises `ConfigError` if a real run's weights
    cannot be loaded.
    """
    run_dir = Path(run_dir)
    real = _real_run(prepared)
    config = prepared.config
    sent = Sent(config.model.name, config.workload, config.slo)
    recorders = Recorders(config.harness, prepared.requests, sent)
    comparison = Comparison(run_dir, [], interrupted=False)
    with (
        Interrupts() as interrupts,
        RunWriter(run_dir, prepared.saved, describe_environment(), config.timeline) as writer,
    ):
        for name in config.allocators:
            columns = writer.columns(name)
            serve = partial(_serve, prepared, name, columns, recorders, real, watch)
            served = _interruptible(interrupts, name, serve)
            comparison.rows.append(served.row)
            if served.totals is not None:
                comparison.totals[name] = served.totals
            if comparison.unsaved is None:
                end = partial(writer.end, served.row, served.totals, columns)
                comparison.unsaved = _failure(run_dir, end)
        unfinished = _failure(run_dir, writer.finish)
        comparison.unsaved = comparison.unsaved or unfinished
        if comparison.unsaved is None:
            comparison.unsaved = _failure(run_dir, partial(_record, recorders, comparison))
    comparison.interrupted = interrupts.happened
    return comparison


def _failure(run_dir: Path, write: Callable[[], None]) -> str | None:
    """Write; return why that failed, if it did."""
    try:
        write()
    except ResultsError as error:
        return str(error)
    except OSError as error:
        return f"{run_dir}: cannot write the results: {error}"
    return None


def _record(recorders: Recorders, comparison: Comparison) -> None:
    """Write what was recorded, of variants that were interrupted too."""
    comparison.notes += recorders.write(comparison.run_dir)


def _serve(
    prepared: Prepared,
    name: str,
    columns: Consumer,
    recorders: Recorders,
    real: RealRun | None,
    watch: Watch,
) -> Served:
    observers = recorders.observers(name)
    with watch(name, len(prepared.requests)) as progress:
        return stream_variant(
            prepared, name, [columns], observers=observers, real=real, progress=progress
        )


def _interruptible(interrupts: Interrupts, name: str, serve: Callable[[], Served]) -> Served:
    if interrupts.happened:
        return Served(ResultRow(name, "error", "interrupted before it started"))
    try:
        interrupts.armed = True
        result = serve()
        interrupts.armed = False
        return result
    except KeyboardInterrupt as error:
        # Without a signal it was the allocator that raised it.
        reason = "interrupted before it ended" if interrupts.happened else fault(error)
        return Served(ResultRow(name, "error", reason))


def _real_run(prepared: Prepared) -> RealRun | None:
    """Load the model if it is to be run; raises `ConfigError`."""
    config = prepared.config
    if not config.is_real:
        return None
    from harness.executors.model.real_run import RealRun

    return RealRun(config.executor, config.model, config.seed)
