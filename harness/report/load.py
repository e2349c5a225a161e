"""From run directories to the collection of runs that a report is about."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.report.collection import Collection, Run
from harness.report.numbers import PER_GPU
from harness.results.errors import ResultsError
from harness.results.options import FREE_OPTIONS, flat, short_names, varied
from harness.results.reader import load_summary, summary_rows
from harness.results.runlog import ResultRow
from harness.results.writer import SUMMARY

#: options that say nothing of how a run differs from another
_SILENT = ("notes", *FREE_OPTIONS)
#: more options than that are no label: the directory's name is shorter
_MOST_VARIED = 3


class ReportError(InputError):
    """A report cannot be made; the message is one clear line."""


def load_collection(paths: Iterable[str | Path]) -> Collection:
    """Read every run of the paths; raises ReportError where there is none, or one is unreadable."""
    paths = [Path(path) for path in paths]
    runs: list[Run] = []
    # Of one sweep alone the options are known that its jobs were given.
    recorded = len(paths) == 1 and not _is_run(paths[0])
    try:
        for path in paths:
            runs += [_read_run(path)] if _is_run(path) else _read_sweep(path)
    except ResultsError as error:
        raise ReportError(str(error)) from error
    if not recorded:
        _infer_options(runs)
    names = varied(run.options for run in runs)
    if len(runs) > 1 and (not names or (len(names) > _MOST_VARIED and not recorded)):
        for run, name in zip(runs, _names(runs), strict=True):
            run.options = {"run": name}
        names = ["run"]
    known = [run for run in runs if run.known]
    mixed = len({run.measured for run in known}) > 1
    if mixed and not any(name.partition(".")[0] == "executor" for name in names):
        for run in known:
            run.options["times"] = "measured" if run.measured else "simulated"
        names.append("times")
    _divide_by_gpus(known)
    for run in runs:
        run.options = {name: run.options.get(name, "") for name in names}
    return Collection(runs, short_names(names))


def _names(runs: Sequence[Run]) -> list[str]:
    """The directories' names, with those of the folders they are in where names are the same."""
    if len({run.name for run in runs}) == len(runs):
        return [run.name for run in runs]
    paths = [run.path.resolve() for run in runs]
    common = Path(os.path.commonpath(paths))
    return [path.relative_to(common).as_posix() for path in paths]


def _divide_by_gpus(runs: Sequence[Run]) -> None:
    """Give every row what it puts out a GPU, where their number varies."""
    if len({run.gpus for run in runs}) < 2:
        return
    for run in runs:
        for row in run.ok_rows:
            output_per_s = row.metrics.get("output_tokens_per_s")
            if run.gpus and output_per_s is not None:
                row.metrics[PER_GPU] = output_per_s / run.gpus


def _is_run(path: Path) -> bool:
    return not path.is_dir() or (path / SUMMARY).exists()


def _read_run(path: Path, name: str | None = None) -> Run:
    summary = load_summary(path)
    folder = path if path.is_dir() else path.parent
    rows = summary_rows(summary)
    return Run(
        name or folder.resolve().name,
        folder,
        summary["config"],
        summary["environment"],
        rows + _never_run(summary["config"], rows),
        command=_command(folder),
        totals={row["allocator"]: row["totals"] for row in summary["rows"]},
    )


def _never_run(config: dict[str, Any], rows: Sequence[ResultRow]) -> list[ResultRow]:
    """A row for each allocator that was chosen and has none, for the run was killed before."""
    chosen = config.get("allocators")
    known = {row.allocator for row in rows}
    return [
        ResultRow(name, "error", "did not end: the run was killed before")
        for name in (chosen if isinstance(chosen, dict) else {})
        if name not in known
    ]


def _read_sweep(path: Path) -> list[Run]:
    from harness.results.sweep import read_sweep

    jobs: dict[str, dict[str, Any]] = {}
    failed: dict[str, ResultRow] = {}
    for entry in read_sweep(path):
        jobs[entry.job] = entry.overrides
        if entry.row.allocator == "-":
            failed[entry.job] = entry.row
    if not jobs:
        raise ReportError(f"{path}: holds no {SUMMARY} and no run directories")
    runs = []
    for job, overrides in jobs.items():
        if job in failed:
            run = Run(job, path / job, {}, {}, [failed[job]], command=_command(path / job))
        else:
            run = _read_run(path / job, job)
        run.options = dict(overrides)
        runs.append(run)
    return runs


def _command(folder: Path) -> str | None:
    """The command line that Hydra recorded, without the directory it wrote to."""
    import yaml

    try:
        lines = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(lines, list):
        return None
    return shlex.join(["python", "-m", "harness", *map(str, lines)])


def _infer_options(runs: Sequence[Run]) -> None:
    for run in runs:
        run.options = {
            name: value
            for name, value in flat(run.config).items()
            if name.partition(".")[0] not in _SILENT and name not in _SILENT
        }
