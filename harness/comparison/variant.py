"""One variant of a comparison: the requests through one allocator, and what became of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from allocators.base import AllocatorError, Unsupported
from harness.comparison.prepared import Prepared
from harness.comparison.time_limit import TookTooLong, time_limit
from harness.cost import make_cost
from harness.engine.answers import WrongAnswer
from harness.engine.arrivals import FrontEnd
from harness.engine.choice import choose_engine
from harness.engine.observer import Observer
from harness.engine.setup import Setup
from harness.executors.simulated import SimulatedExecutor
from harness.results import ResultRow, RunLog
from harness.results.stream import BLOCK_ROWS, Consumer, Intake, Kept
from harness.results.summary import Summary

if TYPE_CHECKING:
    from harness.executors.model.real_run import RealRun


def run_variant(
    prepared: Prepared,
    name: str,
    *,
    observers: Sequence[Observer] = (),
    real: RealRun | None = None,
    progress: Callable[[int], None] = lambda ended: None,
) -> tuple[ResultRow, RunLog | None]:
    """Serve the requests with the allocator `name`, and keep the log of all steps.

    See `stream_variant`; the log is None where it did not run.
    """
    kept = Kept()
    served = stream_variant(
        prepared, name, [kept], observers=observers, real=real, progress=progress
    )
    if served.totals is None:
        return served.row, None
    return served.row, kept.log(name, served.capacity_bytes, served.totals)


@dataclass(frozen=True)
class Served:
    """What became of a variant; `totals` are those of a `RunLog`, None where it did not run."""

    row: ResultRow
    totals: dict[str, float] | None = None
    capacity_bytes: int = 0


def stream_variant(
    prepared: Prepared,
    name: str,
    consumers: Sequence[Consumer],
    *,
    observers: Sequence[Observer] = (),
    real: RealRun | None = None,
    progress: Callable[[int], None] = lambda ended: None,
    block_rows: int = BLOCK_ROWS,
) -> Served:
    """Serve the requests with the allocator `name`; a failure is a row with status and reason.

    `consumers` are given the log while it grows, also that of a run that fails later.  `real` is
    the decoder of a real run; `progress` is told how many requests have ended.  Blocks have
    `block_rows` rows, but an engine hands over steps by the thousand.
    """
    limit_s = prepared.config.harness.variant_timeout_s
    try:
        with time_limit(limit_s):
            return _serve(prepared, name, consumers, observers, real, progress, block_rows)
    except Unsupported as error:
        return Served(ResultRow(name, "unsupported", str(error)))
    except (AllocatorError, MemoryError) as error:
        return Served(ResultRow(name, "oom", str(error) or type(error).__name__))
    except TookTooLong as stop:
        reason = f"stopped after harness.variant_timeout_s={limit_s:g} ({stop})"
        return Served(ResultRow(name, "error", reason))
    except KeyboardInterrupt:
        raise  # whether it was the user's is for the caller to know
    except BaseException as error:  # SystemExit too
        # One variant's fault must not cost the results of the others.
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        return Served(ResultRow(name, "error", fault(error)))


def fault(error: BaseException) -> str:
    """Return what an allocator did wrong, in one line: the error and where it was raised."""
    text = " ".join(str(error).split())
    if isinstance(error, WrongAnswer):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{what} ({Path(frame.filename).name}:{frame.lineno})"


def _serve(
    prepared: Prepared,
    name: str,
    consumers: Sequence[Consumer],
    observers: Sequence[Observer],
    real: RealRun | None,
    progress: Callable[[int], None],
    block_rows: int,
) -> Served:
    config, requests = prepared.config, prepared.requests
    allocator, digest = prepared.allocator(name), None
    capacity_bytes = allocator.geometry.capacity_bytes
    summary = Summary(name, capacity_bytes, config.slo)
    intake = Intake([summary, *consumers], requests.name, block_rows)
    with ExitStack() as held:
        if real is None:
            software = config.software
            cost = make_cost(config.model, config.hardware, config.cost_model, software)
            executor = SimulatedExecutor(cost, allocator, config.sampling.draft_cost)
            front_end = FrontEnd(
                software.request_us * 1e-6,
                software.response_us * 1e-6,
                plans_ahead=software.overlapped,
            )
        else:
            executor = held.enter_context(real.executor(allocator, requests, config.sampling))
            front_end = FrontEnd()
        engine = choose_engine(
            Setup(
                allocator,
                requests,
                config.sampling,
                config.engine,
                executor,
                config.seed,
                observers,
                front_end=front_end,
            )
        )
        totals = engine.serve(intake, progress)
        if real is not None:
            digest = executor.histories.digest()
            totals["resident_peak_bytes"] = float(executor.resident_peak_bytes)
    intake.finish()
    row = ResultRow(name, metrics=summary.metrics(totals), output_digest=digest, loop=engine.loop)
    return Served(row, totals, capacity_bytes)
