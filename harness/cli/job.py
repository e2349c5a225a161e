"""The job that Hydra runs, once or once for each point of a sweep."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli.points import Points
from harness.cli.progress import bar
from harness.cli.reporting import try_report
from harness.cli.sweep import combine
from harness.cli.table import print_location, print_table
from harness.command.frame import FAILED, INTERRUPTED, OK, WRONG
from harness.errors import ConfigError
from harness.results import ResultsError
from harness.run import Prepared, run_comparison


def run_hydra(points: Points) -> int:
    """Run the command line in `sys.argv`; return the exit status of the worst job.

    `points` are what was prepared when the command line was checked.
    """
    statuses: list[int] = []
    sweeps: set[Path] = set()

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def job(composed: DictConfig) -> None:
        settings = HydraConfig.get()
        if settings.mode == RunMode.MULTIRUN:
            print(f"\n{' '.join(settings.overrides.task)}")
            sweeps.add(Path(settings.sweep.dir))
        try:
            prepared = points.take(composed)
            statuses.append(compare_and_show(prepared, Path(settings.runtime.output_dir)))
        except (ConfigError, ResultsError) as error:
            print(f"error: {error}", file=sys.stderr)
            statuses.append(WRONG)
        if statuses[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    try:
        job()
    except KeyboardInterrupt:
        for sweep_dir in sweeps:  # what has finished is worth a table too
            with suppress(ResultsError):
                combine(sweep_dir)
        return INTERRUPTED
    return max(statuses, default=OK)


def compare_and_show(prepared: Prepared, run_dir: Path) -> int:
    """Run a comparison and show what came of it: the table, figures, the report.

    Returns the exit status: 0; 1 when no allocator could run, one crashed, or the results could not
    be written; 130 after Ctrl-C.
    """
    for note in prepared.notes:
        print(f"note: {note}", file=sys.stderr)
    comparison = run_comparison(prepared, run_dir, bar)
    print_table(comparison.rows)
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    if comparison.unsaved is not None:
        print(f"error: {comparison.unsaved}", file=sys.stderr)
        return INTERRUPTED if comparison.interrupted else FAILED
    if comparison.interrupted:
        print_location(run_dir)
        if comparison.logs:
            print(f"interrupted; python -m harness.report {run_dir} reports on what had ended")
        return INTERRUPTED
    if comparison.logs:
        from harness.report.charts import write_figures

        write_figures(run_dir, comparison.rows, comparison.logs)
        if prepared.config.report != "none":
            try_report(run_dir)
    print_location(run_dir)
    return OK if comparison.logs and not comparison.crashed else FAILED
