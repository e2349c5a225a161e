"""Runs a sweep: hands its points to Hydra's launcher, and those again that a killed worker lost."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from harness.cli.config_dir import quoted
from harness.cli.notes import Notes
from harness.cli.points import Points
from harness.cli.sweeps.plan import LOOK_S, MARK, Place, Sweep, arrange
from harness.cli.sweeps.table import end_sweep
from harness.cli.sweeps.task import stay_here, task
from harness.cli.sweeps.watch import Watch
from harness.command.frame import FAILED, INTERRUPTED
from harness.command.output import say
from harness.results import Claim, ResultsError
from harness.results.outcome import Outcome, read_outcome, write_outcome
from harness.results.sweep import job_dirs

#: a job whose worker was killed while it ran, twice
KILLED = "its worker was killed while it ran, twice; sweep.resume=true tries again"


class LauncherError(Exception):
    """Hydra's launcher or sweeper gave up; the message is one line."""


def run_sweep(sweep: Sweep, points: Points) -> int:
    """Run what is missing of a sweep, show its table; return the exit status of the worst job."""
    notes = Notes()
    try:
        if sweep.spec.resume:
            arrange(sweep)
    except OSError as error:
        print(f"error: {sweep.folder}: cannot be written: {error.strerror}", file=sys.stderr)
        return FAILED
    status = 0
    try:
        status = _run(sweep, points, notes)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except LauncherError as error:
        print(f"error: {error}", file=sys.stderr)
        status = FAILED
    left = len(sweep.missing)
    if job_dirs(sweep.folder):
        report = sweep.report and status != INTERRUPTED
        status = max(status, end_sweep(sweep.folder, report=report, spec=sweep.spec))
    if left or (status == INTERRUPTED and not sweep.places):
        many = f"{left} of {len(sweep.places)} jobs are missing" if left else "it was interrupted"
        again = shlex.join(["sweep.resume=true", f"hydra.sweep.dir={sweep.folder}"])
        say(f"note: {many}; the same command with {again} runs them")
        status = status or FAILED
    return status


def _run(sweep: Sweep, points: Points, notes: Notes) -> int:
    """Run the jobs; raises `LauncherError`, `KeyboardInterrupt`."""
    missing = sweep.missing
    if sweep.places and not missing:
        say(f"note: all {len(sweep.places)} jobs have ended already")
        return 0
    with initialize_config_module("conf", job_name="kv-harness", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = hydra.compose_config(
            "config", [*sweep.lines, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN, True
        )
        callbacks = Callbacks(config)
        callbacks.on_multirun_start(config=config, config_name="config")
        sweeper = Plugins.instance().instantiate_sweeper(
            config=config,
            hydra_context=HydraContext(hydra.config_loader, callbacks),
            task_function=task,
        )
        try:
            OmegaConf.save(config, sweep.folder / MARK)
        except OSError as error:
            raise LauncherError(f"{sweep.folder}: cannot be written: {error.strerror}") from error
        total = len(sweep.places) or config.hydra.sweeper.get("n_trials")
        watch = Watch(sweep, total, notes)
        if not sweep.beside:
            stay_here(points, watch.look)
        with watch.looking() if sweep.beside else nullcontext():
            if sweep.searched:
                _search(sweep, sweeper, config)
            else:
                _launch(sweep, sweeper, missing)
        callbacks.on_multirun_end(config=config, config_name="config")
    if sweep.beside:
        notes.tell(["jobs ran beside each other: allocator_us_per_step is of a busy machine"])
    return max(watch.statuses, default=0)


def _search(sweep: Sweep, sweeper: Any, config: DictConfig) -> None:
    """Let a sweeper choose the points that it runs."""
    # Their libraries tell each point at length; our own line says what there is to say.
    logging.getLogger("optuna").setLevel(logging.WARNING)
    try:
        sweeper.sweep(arguments=list(config.hydra.overrides.task))
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        raise LauncherError(_one_line(sweep, error)) from error


def _launch(sweep: Sweep, sweeper: Any, missing: list[Place]) -> None:
    """Run the points; those whose worker was killed again, each alone, when the others have ended.

    A launcher whose worker dies may give up the whole batch, whatever has not ended of it.
    """
    suspects: list[Place] = []
    while missing:
        failure = _try(sweep, sweeper, missing)
        _wait(sweep)
        left = [place for place in missing if not sweep.has_ended(place)]
        if not left:
            break
        _check_code(sweep, left)
        begun = [place for place in left if (sweep.folder / place.folder).exists()]
        if len(left) == len(missing) and not begun:
            raise LauncherError(failure or f"hydra/launcher={sweep.launcher} ran no job")
        if not sweep.beside:
            if failure is not None:
                raise LauncherError(failure)
            return  # nobody was killed: its outcome could not be written, which has been said
        suspects += begun
        missing = [place for place in left if place not in begun]
        why = f" ({failure})" if failure else ""
        say(f"note: a worker was lost{why}; going on with {len(left)} jobs")
    for place in suspects:
        _try(sweep, sweeper, [place])
        _wait(sweep)
        if not sweep.has_ended(place):
            outcome = Outcome(place.key, FAILED, 0.0, finished=False, error=KILLED)
            try:
                write_outcome(sweep.folder / place.folder, outcome)
            except ResultsError as error:
                raise LauncherError(str(error)) from error


def _check_code(sweep: Sweep, left: Sequence[Place]) -> None:
    """Raise `LauncherError` where a worker ran a job under another key than it has here."""
    for place in left:
        if read_outcome(sweep.folder / place.folder) is not None:
            raise LauncherError(
                f"job {place.folder} was run by a worker whose code, or whose input files, are not "
                "those of this process: every machine of a sweep needs the same"
            )


def _try(sweep: Sweep, sweeper: Any, places: Sequence[Place]) -> str | None:
    """Launch jobs; return why the launcher gave up, if it did."""
    jobs = [[*place.overrides, f"hydra.sweep.subdir={quoted(place.folder)}"] for place in places]
    launcher = sweeper.launcher
    try:
        number = 0
        for batch in sweeper.split_overrides_to_chunks(jobs, sweeper.max_batch_size):
            launcher.launch(batch, initial_job_idx=number)
            number += len(batch)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        return _one_line(sweep, error)
    return None


def _wait(sweep: Sweep) -> None:
    """Wait for jobs that go on although their launcher gave up."""
    while any(Claim.is_held(sweep.folder / place.folder) for place in sweep.missing):
        time.sleep(LOOK_S)


def _one_line(sweep: Sweep, error: BaseException) -> str:
    """Return what a launcher or a sweeper raised, as far as its first sentence."""
    text = re.split(r"(?<=[a-z])\.\s", " ".join(str(error).split()))[0]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"hydra/launcher={sweep.launcher}: {what}"
