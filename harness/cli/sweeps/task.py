"""One job of a sweep, in whichever process Hydra's launcher runs it.

It prints nothing where others run beside it: what there is to say goes into `job.json`, and the
process that began the sweep says it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from harness.cli.points import Points
from harness.cli.progress import bar
from harness.cli.reporting import try_figures, try_report
from harness.cli.sweeps.clock import on_this_machine
from harness.cli.sweeps.plan import BASIC_SWEEPER, adopt, clear
from harness.command.frame import FAILED, OK, WRONG
from harness.comparison import Prepared, run_comparison
from harness.comparison.config import to_config
from harness.comparison.key import job_key
from harness.errors import ConfigError
from harness.results import Claim, ResultsError, load_summary, summary_rows
from harness.results.claim import Busy
from harness.results.goal import NOTHING, best_score
from harness.results.outcome import Outcome, read_outcome, write_outcome


@dataclass
class Here:
    """What jobs share that run in one process.

    points: what has been prepared. ended: called after each job, where it is that of the sweep.
    """

    points: Points
    ended: Callable[[], None] | None = None
    process: int = 0


_here = Here(Points())


def stay_here(points: Points, ended: Callable[[], None]) -> None:
    """Let the jobs that run in this very process use what is prepared, and tell when they end."""
    global _here
    _here = Here(points, ended, os.getpid())


def task(composed: DictConfig) -> float:
    """Run a job, unless its folder holds its results already; return its score for a sweeper.

    Raises `KeyboardInterrupt` after Ctrl-C; whatever else goes wrong is in the outcome.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task)
    at_home = _here.ended is not None and _here.process == os.getpid()
    if not at_home:
        _settle(settings.runtime.cwd)
    try:
        with Claim(folder, used=True):
            key = job_key(composed)
            if not _found(folder, key):
                _work(composed, overrides, folder, key, at_home)
    except Busy:
        return NOTHING  # the process that has the folder will tell
    except ResultsError as error:
        # There is no room for an outcome either.
        print(f"error: {error}", file=sys.stderr)
        return NOTHING
    if at_home and _here.ended is not None:
        _here.ended()
    return _score(composed, folder)


def _settle(folder: str) -> None:
    """Make a worker of this process: its jobs end when the sweep says so, and not at Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.path.isdir(folder):
        os.chdir(folder)  # options name files relative to where the sweep began


def _found(folder: Path, key: str) -> bool:
    """Whether a folder holds the results of its job, or now does; else it is cleared for it.

    Raises `ResultsError` where it cannot be written.
    """
    known = read_outcome(folder)
    if known is not None and known.key == key:
        return True
    settings = HydraConfig.get()
    searched = not str(settings.sweeper.get("_target_")).endswith(BASIC_SWEEPER)
    try:
        clear(folder)
        return adopt(folder, Path(settings.sweep.dir), key, searched=searched)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror}") from error


def _work(
    composed: DictConfig, overrides: list[str], folder: Path, key: str, at_home: bool
) -> None:
    """Run a job and write what became of it, last; raises `ResultsError`."""
    start_s = time.monotonic()
    try:
        outcome = _run(composed, overrides, folder, key, at_home)
    except (ConfigError, ResultsError) as error:
        outcome = Outcome(key, WRONG, 0.0, finished=False, error=str(error))
    seconds = time.monotonic() - start_s
    write_outcome(folder, Outcome(**{**vars(outcome), "seconds": seconds}))


def _run(
    composed: DictConfig, overrides: list[str], folder: Path, key: str, at_home: bool
) -> Outcome:
    prepared = _here.points.take(composed, overrides)
    with _clock(prepared, at_home):
        watch = {"watch": partial(bar, transient=True)} if at_home else {}
        comparison = run_comparison(prepared, folder, **watch)
    notes = [*prepared.notes, *comparison.notes]
    if comparison.unsaved is not None:
        if comparison.interrupted:
            raise KeyboardInterrupt
        return Outcome(key, FAILED, 0.0, finished=False, notes=notes, error=comparison.unsaved)
    if comparison.interrupted:
        raise KeyboardInterrupt
    if comparison.served and prepared.config.report != "none":
        notes += [*try_figures(comparison), *try_report(folder)]
    faults = any(row.status == "error" for row in comparison.rows)
    status = OK if comparison.served and not comparison.crashed else FAILED
    return Outcome(key, status, 0.0, finished=not faults, notes=notes)


def _clock(prepared: Prepared, at_home: bool) -> AbstractContextManager[None]:
    """Hold the machine's clock where other jobs may run beside this one."""
    return nullcontext() if at_home else on_this_machine(alone=prepared.config.is_real)


def _score(composed: DictConfig, folder: Path) -> float:
    if composed.sweep.maximize is None:
        return NOTHING
    try:
        return best_score(summary_rows(load_summary(folder)), to_config(composed).sweep)
    except ResultsError:
        return NOTHING
