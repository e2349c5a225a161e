"""A single run, shown as a user sees it; and what Hydra itself answers."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import run_and_report
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict

from harness.cli.notes import Notes
from harness.cli.points import Points, wants_report
from harness.cli.progress import bar
from harness.cli.reporting import try_figures, try_report
from harness.cli.sweeps.plan import Sweep
from harness.cli.sweeps.table import end_sweep
from harness.cli.sweeps.task import stay_here, task
from harness.cli.sweeps.watch import Watch
from harness.cli.table import print_location, print_table
from harness.command.frame import FAILED, INTERRUPTED, OK, WRONG
from harness.comparison import Prepared, run_comparison
from harness.comparison.config import JOB_NAME
from harness.errors import ConfigError
from harness.results import ResultsError
from harness.results.goal import SweepSpec


def run_one(points: Points) -> int:
    """Run the point that was composed and prepared when it was checked; return the exit status.

    Hydra runs the job, with its files, its logging and its callbacks; only it does not compose the
    same configuration again, which takes longer than a short run.
    """
    statuses: list[int] = []
    composed, prepared = points.composed, points.only
    assert composed is not None
    assert prepared is not None

    def job(_: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        statuses.append(_compare(prepared, folder, Notes()))

    def run() -> None:
        configure_log(composed.hydra.hydra_logging, composed.hydra.verbose)
        callbacks = Callbacks(composed)
        callbacks.on_run_start(config=composed, config_name="config")
        done = run_job(
            job,
            composed,
            "hydra.run.dir",
            None,
            HydraContext(GlobalHydra.instance().config_loader(), callbacks),
        )
        callbacks.on_run_end(config=composed, config_name="config", job_return=done)
        _ = done.return_value  # raises what the job raised

    with open_dict(composed):
        composed.hydra.mode = RunMode.RUN
    try:
        with initialize_config_module("conf", job_name=JOB_NAME, version_base="1.3"):
            run_and_report(run)
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(statuses, default=OK)


def run_hydra(points: Points) -> int:
    """Hand the command line in `sys.argv` to Hydra; return its exit status.

    It comes here where Hydra itself answers, or where the primary configuration is the user's own,
    which nothing has looked at before.
    """
    statuses: list[int] = []
    sweeps: dict[Path, Sweep] = {}
    notes = Notes()

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def job(composed: DictConfig) -> None:
        settings = HydraConfig.get()
        if settings.mode == RunMode.MULTIRUN:
            folder = Path(settings.sweep.dir)
            if folder not in sweeps:
                sweeps[folder] = Sweep(folder, [], SweepSpec(), wants_report(composed))
                stay_here(points, Watch(sweeps[folder], None, notes, statuses).look)
            task(composed)
            return
        try:
            prepared = points.take(composed, list(settings.overrides.task))
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            statuses.append(WRONG)
            return
        statuses.append(_compare(prepared, Path(settings.runtime.output_dir), notes))

    interrupted = False
    try:
        job()
    except KeyboardInterrupt:
        interrupted = True
    for sweep in sweeps.values():
        report = sweep.report and not interrupted
        statuses.append(end_sweep(sweep.folder, report=report, spec=sweep.spec))
    return INTERRUPTED if interrupted else max(statuses, default=OK)


def _compare(prepared: Prepared, run_dir: Path, notes: Notes) -> int:
    """Run a comparison within Hydra; raises `KeyboardInterrupt` after Ctrl-C."""
    try:
        status = compare_and_show(prepared, run_dir, notes)
    except (ConfigError, ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status


def compare_and_show(prepared: Prepared, run_dir: Path, notes: Notes) -> int:
    """Run a comparison and show what came of it: the table, figures, the report.

    Returns the exit status: 0; 1 when no allocator could run, one crashed, or the results could not
    be written; 130 after Ctrl-C.
    """
    notes.tell(prepared.notes)
    comparison = run_comparison(prepared, run_dir, bar)
    print_table(comparison.rows)
    notes.tell(comparison.notes)
    if comparison.unsaved is not None:
        print(f"error: {comparison.unsaved}", file=sys.stderr)
        return INTERRUPTED if comparison.interrupted else FAILED
    if comparison.interrupted:
        print_location(run_dir)
        if comparison.served:
            print(f"interrupted; python -m harness.report {run_dir} reports on what had ended")
        return INTERRUPTED
    if comparison.served:
        notes.tell(try_figures(comparison))
        if prepared.config.report != "none":
            notes.tell(try_report(run_dir))
    print_location(run_dir)
    return OK if comparison.served and not comparison.crashed else FAILED
