"""One comparison: the same requests through each allocator, and what is kept of it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from allocators.base import AllocatorError, Unsupported
from harness.cli.screen import Progress, print_location, print_table
from harness.command.interrupts import Interrupts
from harness.cost import CostError, make_cost
from harness.engine.engine import Engine, Executor
from harness.engine.observer import Observer
from harness.errors import ConfigError
from harness.executors.simulated import SimulatedExecutor
from harness.observers.recorders import Recorders, try_report
from harness.results import Row, RunLog, RunWriter, describe_environment
from harness.results.summary import summarize
from harness.run.config import (
    Config,
    doubts,
    make_allocator,
    make_geometry,
    make_requests,
    to_config,
)
from workloads.requests import RequestTable

if TYPE_CHECKING:
    from harness.executors.model.real_run import RealRun

#: page-groups of a pool below which their size alone decides what fits
FEW_GROUPS = 32

OK, FAILED, INTERRUPTED = 0, 1, 130


def prepare(composed: DictConfig) -> tuple[Config, RequestTable]:
    """Check everything that can be checked before a run; raises `ConfigError`."""
    config = to_config(composed)
    geometry = make_geometry(config)
    if config.executor.name == "model":
        from harness.executors.model.settings import check_pool

        check_pool(config.executor, config.model, geometry.capacity_bytes)
    requests = make_requests(config, geometry)
    try:
        make_cost(config.model, config.hardware, config.cost_model)
    except CostError as error:
        raise ConfigError(str(error)) from error
    for name, knobs in config.allocators.items():
        try:
            allocator = make_allocator(name, knobs, geometry)
        except (AllocatorError, MemoryError):
            continue  # becomes a row with a status
        groups = sum(allocator.balance()) if allocator.pages_per_group else FEW_GROUPS
        if groups < FEW_GROUPS:
            requests.notes.append(
                f"{name}: a page-group holds {allocator.geometry.page_tokens} tokens, and the pool "
                f"{groups} of them: their size decides what fits (allocators.{name}.page_size, "
                "layout)"
            )
    return config, requests


def run_comparison(composed: DictConfig, run_dir: Path) -> int:
    """Run every allocator of the configuration, write the run directory, print the table.

    Returns the exit status: 0, 1 when no allocator could run or one crashed, 130 after Ctrl-C.
    """
    config, requests = prepare(composed)
    real = _real_run(config)
    requests.notes.extend(doubts(config))
    for note in requests.notes:
        print(f"note: {note}", file=sys.stderr)
    saved = OmegaConf.to_container(
        OmegaConf.masked_copy(composed, list(Config.__dataclass_fields__)), resolve=True
    )
    if real is not None:
        from harness.executors.model.settings import described

        saved.update(described(config.executor, config.model))
    logs: list[RunLog] = []
    recorders = Recorders(config.harness, requests)
    with (
        Interrupts() as interrupts,
        RunWriter(run_dir, _with_notes(saved, requests), describe_environment()) as writer,
    ):
        for name, knobs in config.allocators.items():
            log = None
            if interrupts.happened:
                row = Row(name, "error", "interrupted before it started")
            else:
                observers = recorders.observers(name)
                run = partial(run_variant, name, knobs, config, requests, observers, real)
                row, log = _interruptible(interrupts, name, run)
            writer.add(row, log)
            if log is not None:
                logs.append(log)
    interrupted = interrupts.happened
    rows = writer.rows
    print_table(rows)
    if logs and not interrupted:
        from harness.report.figures import write_figures

        write_figures(run_dir, rows, logs)
        recorders.write(run_dir)
        if config.report != "none":
            try_report(run_dir)
    print_location(run_dir)
    if interrupted:
        if logs:
            print(f"interrupted; python -m harness.report {run_dir} reports on what had ended")
        return INTERRUPTED
    crashed = any(row.status == "error" for row in rows)
    return OK if logs and not crashed else FAILED


def _interruptible(
    interrupts: Interrupts, name: str, run: Callable[[], tuple[Row, RunLog | None]]
) -> tuple[Row, RunLog | None]:
    try:
        interrupts.armed = True
        result = run()
        interrupts.armed = False
        return result
    except KeyboardInterrupt:
        return Row(name, "error", "interrupted before it ended"), None


def _real_run(config: Config) -> RealRun | None:
    """Load the model if it is to be run; raises `ConfigError`."""
    if config.executor.name != "model":
        return None
    from harness.executors.model.real_run import RealRun

    return RealRun(config.executor, config.model, config.seed)


def run_variant(
    name: str,
    knobs: dict[str, Any],
    config: Config,
    requests: RequestTable,
    observers: Sequence[Observer] = (),
    real: RealRun | None = None,
) -> tuple[Row, RunLog | None]:
    """Serve the requests with one allocator; a failure is a row with a status and a reason."""
    try:
        allocator = make_allocator(name, knobs, make_geometry(config))
        with ExitStack() as held:
            executor: Executor
            if real is None:
                cost = make_cost(config.model, config.hardware, config.cost_model)
                executor = SimulatedExecutor(cost, allocator, config.sampling.draft_cost)
            else:
                executor = held.enter_context(real.executor(allocator, requests, config.sampling))
            engine = Engine(
                allocator,
                requests,
                config.sampling,
                config.engine,
                executor,
                config.seed,
                observers,
            )
            progress = held.enter_context(Progress())
            progress.start(name, len(requests))
            log = engine.run(name, progress.update)
            digest = None if real is None else executor.histories.digest()
            if real is not None:
                log.totals["resident_peak_bytes"] = float(executor.resident_peak_bytes)
    except Unsupported as error:
        return Row(name, "unsupported", str(error)), None
    except (AllocatorError, MemoryError) as error:
        return Row(name, "oom", str(error) or type(error).__name__), None
    except Exception as error:
        # One variant's fault must not cost the results of the others.
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return Row(name, "error", f"{type(error).__name__}: {error} ({where})"), None
    log.check()
    return Row(name, metrics=summarize(log), output_digest=digest), log


def _with_notes(saved: Any, requests: RequestTable) -> dict[str, Any]:
    return {**saved, "notes": list(requests.notes), "num_requests": len(requests)}
