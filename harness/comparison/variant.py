"""One variant of a comparison: the requests through one allocator, and what became of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from allocators.base import AllocatorError, Unsupported
from harness.comparison.prepared import Prepared
from harness.comparison.time_limit import TookTooLong, time_limit
from harness.cost import make_cost
from harness.engine.answers import WrongAnswer
from harness.engine.arrivals import FrontEnd
from harness.engine.engine import Engine
from harness.engine.observer import Observer
from harness.executors.simulated import SimulatedExecutor
from harness.results import ResultRow, RunLog
from harness.results.summary import summarize

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
    """Serve the requests with the allocator `name`; a failure is a row with status and reason.

    `real` is the decoder of a real run; `progress` is told how many requests have ended.
    """
    limit_s = prepared.config.harness.variant_timeout_s
    try:
        with time_limit(limit_s):
            return _serve(prepared, name, observers, real, progress)
    except Unsupported as error:
        return ResultRow(name, "unsupported", str(error)), None
    except (AllocatorError, MemoryError) as error:
        return ResultRow(name, "oom", str(error) or type(error).__name__), None
    except TookTooLong as stop:
        return ResultRow(
            name, "error", f"stopped after harness.variant_timeout_s={limit_s:g} ({stop})"
        ), None
    except KeyboardInterrupt:
        raise  # whether it was the user's is for the caller to know
    except BaseException as error:  # SystemExit too
        # One variant's fault must not cost the results of the others.
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        return ResultRow(name, "error", fault(error)), None


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
    observers: Sequence[Observer],
    real: RealRun | None,
    progress: Callable[[int], None],
) -> tuple[ResultRow, RunLog]:
    config, requests = prepared.config, prepared.requests
    allocator, digest = prepared.allocator(name), None
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
        engine = Engine(
            allocator,
            requests,
            config.sampling,
            config.engine,
            executor,
            config.seed,
            observers,
            front_end=front_end,
        )
        log = engine.run(name, progress)
        if real is not None:
            digest = executor.histories.digest()
            log.totals["resident_peak_bytes"] = float(executor.resident_peak_bytes)
    return ResultRow(name, metrics=summarize(log), output_digest=digest), log
