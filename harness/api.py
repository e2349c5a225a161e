"""The program from Python: a comparison or a sweep in one call, and its results as tables.

import harness

results = harness.run(["+workload=beam", "allocator=[paged,virtual]"])
results.table[["allocator", "output_tokens_per_s"]]
harness.load("results/runs/*/*")
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.config_dir import quoted
from harness.cli.installed import search_path_override
from harness.cli.notes import Notes
from harness.cli.points import Points
from harness.command.frame import INTERRUPTED
from harness.errors import ConfigError
from harness.results import ResultsError
from harness.results.frame import load, load_columns
from harness.results.writer import REQUESTS, TIMELINE
from harness.siblings import in_the_way

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "load", "run"]


@dataclass(frozen=True)
class Results:
    """What a run or a sweep left.

    folder: its directory; whatever is shown here is read from there.
    """

    folder: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each allocator (of each job), with the columns of `harness.load`."""
        return load(self.folder)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row for each request of each allocator: arrival, first token and finish in seconds."""
        return load_columns(self.folder, REQUESTS)

    @cached_property
    def timeline(self) -> pd.DataFrame:
        """A row for each step of each allocator: memory in bytes, times in seconds."""
        return load_columns(self.folder, TIMELINE)

    @property
    def report(self) -> Path | None:
        """The page, where `report=none` did not leave it out."""
        page = self.folder / "report.html"
        return page if page.exists() else None

    def _repr_html_(self) -> str:
        return self.table.to_html(max_cols=12)


def run(overrides: Sequence[str], out: str | Path | None = None) -> Results:
    """Run what a command line of these overrides would, and return its results.

    overrides: as after `python -m harness`. Where one lists several values it is a sweep, of which
        every option of docs/sweeps.md holds: `hydra/launcher=joblib`, `sweep.resume=true`.
    out: the directory, by default a dated one in `results/runs`.

    Nothing is printed; notes and what went wrong with a job go to standard error. An allocator that
    cannot serve the workload is a row with a status and a reason.

    Raises `InputError`, in one line, for what the command refuses; `ResultsError` where results
    cannot be written; `KeyboardInterrupt` after Ctrl-C, when what has ended is written.
    """
    from harness.cli.checks import check
    from harness.cli.overrides import lists_several

    arguments = [*overrides, *search_path_override(list(overrides))]
    several = lists_several(arguments)
    if out is not None:
        arguments.append(f"hydra.{'sweep' if several else 'run'}.dir={quoted(str(out))}")
    points = Points()
    problem = in_the_way() or check([*["-m"] * several, *arguments], points)[0]
    try:
        if problem is not None:
            raise ConfigError(problem)
        folder = _run_sweep(points) if points.sweep is not None else _run_one(points)
    finally:
        points.release()
    return Results(folder)


def _run_one(points: Points) -> Path:
    from harness.cli.reporting import try_figures, try_report
    from harness.comparison import run_comparison

    assert points.only is not None
    assert points.claim is not None
    comparison = run_comparison(points.only, points.claim.path)
    if comparison.unsaved is not None:
        raise ResultsError(comparison.unsaved)
    if comparison.interrupted:
        raise KeyboardInterrupt
    if comparison.served and points.only.config.report != "none":
        Notes().tell([*try_figures(comparison), *try_report(comparison.run_dir)])
    return comparison.run_dir


def _run_sweep(points: Points) -> Path:
    from harness.cli.sweeps.launch import run_sweep

    assert points.sweep is not None
    # The lines of the jobs and the table are for a terminal: here the table is a value.
    with redirect_stdout(io.StringIO()):
        status = run_sweep(points.sweep, points)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return points.sweep.folder
