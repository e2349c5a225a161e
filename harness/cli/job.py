"""The job that Hydra runs, once or once for each point of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli.joblines import JobLines
from harness.cli.points import Points, wants_report
from harness.cli.progress import bar
from harness.cli.reporting import try_figures, try_report
from harness.cli.sweep import combine, end_sweep
from harness.cli.table import print_location, print_table
from harness.command.frame import FAILED, INTERRUPTED, OK, WRONG
from harness.errors import ConfigError
from harness.results import ResultRow, ResultsError
from harness.run import Prepared, run_comparison


def run_hydra(points: Points) -> int:
    """Run the command line in `sys.argv`; return the exit status of the worst job.

    `points` are what was prepared when the command line was checked.
    """
    statuses: list[int] = []
    sweeps = dict(points.sweeps)
    notes = Notes()
    lines = JobLines(points.swept, points.count)

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def job(composed: DictConfig) -> None:
        settings = HydraConfig.get()
        overrides = list(settings.overrides.task)
        job_line = None
        if settings.mode == RunMode.MULTIRUN:
            # Known already, unless the primary configuration is the user's own.
            sweeps[Path(settings.sweep.dir)] = wants_report(composed)
            job_line = partial(lines.line, overrides)
        try:
            prepared = points.take(composed, overrides)
            run_dir = Path(settings.runtime.output_dir)
            statuses.append(compare_and_show(prepared, run_dir, notes, job_line))
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
    statuses += [end_sweep(sweep_dir, report=report) for sweep_dir, report in sweeps.items()]
    return max(statuses, default=OK)


class Notes:
    """Prints notes, each once however many jobs have it."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, notes: Iterable[str]) -> None:
        """Print those that have not been told yet."""
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                print(f"note: {note}", file=sys.stderr)


def compare_and_show(
    prepared: Prepared,
    run_dir: Path,
    notes: Notes,
    job_line: Callable[[Sequence[ResultRow]], str] | None = None,
) -> int:
    """Run a comparison and show what came of it: the table, figures, the report.

    `job_line` makes of the rows what a job of a sweep prints instead of its table.
    Returns the exit status: 0; 1 when no allocator could run, one crashed, or the results could not
    be written; 130 after Ctrl-C.
    """
    notes.tell(prepared.notes)
    comparison = run_comparison(prepared, run_dir, partial(bar, transient=job_line is not None))
    if job_line is None:
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
        try_figures(comparison)
        if prepared.config.report != "none":
            try_report(run_dir)
    if job_line is None:
        print_location(run_dir)
    else:
        print(job_line(comparison.rows), flush=True)
    return OK if comparison.served and not comparison.crashed else FAILED
