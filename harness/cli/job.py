"""A single run, shown as a user sees it; and what Hydra itself answers."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

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
from harness.errors import ConfigError
from harness.results import ResultsError
from harness.results.goal import SweepSpec


def run_hydra(points: Points) -> int:
    """Run the command line in `sys.argv`; return its exit status.

    `points` hold what was prepared when the command line was checked. A sweep comes here only where
    its primary configuration is the user's own, which nothing has looked at before.
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
            statuses.append(compare_and_show(prepared, Path(settings.runtime.output_dir), notes))
        except (ConfigError, ResultsError) as error:
            print(f"error: {error}", file=sys.stderr)
            statuses.append(WRONG)
        if statuses[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    interrupted = False
    try:
        job()
    except KeyboardInterrupt:
        interrupted = True
    for sweep in sweeps.values():
        report = sweep.report and not interrupted
        statuses.append(end_sweep(sweep.folder, report=report, spec=sweep.spec))
    return INTERRUPTED if interrupted else max(statuses, default=OK)


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
