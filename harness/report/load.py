"""From run directories to what a report is about: runs, and the options in which they differ."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.report.numbers import PER_GPU
from harness.results.errors import ResultsError
from harness.results.options import FREE_OPTIONS, flat, short_names, varied
from harness.results.reader import load_summary, summary_rows
from harness.results.runlog import Row
from harness.results.writer import SUMMARY

#: options that say nothing of how a run differs from another
_SILENT = ("notes", *FREE_OPTIONS)
#: more options than that are no label: the directory's name is shorter
_MOST_VARIED = 3


class ReportError(InputError):
    """A report cannot be made; the message is one clear line."""


@dataclass
class Run:
    """One run directory. `options` are those in which it differs from the report's other runs.

    totals: of each allocator what its columns do not tell, see `harness.results.writer`.
    """

    name: str
    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[Row]
    options: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    totals: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def ok_rows(self) -> list[Row]:
        return [row for row in self.rows if row.ok]

    @property
    def measured(self) -> bool:
        """Whether a model was really run."""
        executor = self.config.get("executor")
        return isinstance(executor, dict) and executor.get("name") == "model"

    @property
    def _calibration(self) -> str | None:
        """The file of measured times that a simulated run was priced with."""
        cost = self.config.get("cost_model")
        if self.measured or not isinstance(cost, dict) or cost.get("name") != "calibrated":
            return None
        return Path(str(cost.get("file"))).name

    @property
    def clock(self) -> str:
        """What the times of the run are: simulated, or measured on what."""
        executor = self.config.get("executor")
        if not self.measured:
            table = self._calibration
            return f"simulated with the times in {table}" if table else "simulated"
        settings = (str(executor.get(name)) for name in ("device", "dtype", "backend"))
        return f"measured ({', '.join(settings)} attention)"

    @property
    def machine(self) -> str | None:
        """What the requests were served on: the hardware that was simulated, or this one."""
        if self._calibration:
            return f"the machine of {self._calibration}"
        if not self.measured:
            hardware = self.config.get("hardware")
            return hardware.get("name") if isinstance(hardware, dict) else None
        gpu = self.environment.get("gpu")
        if self.config["executor"].get("device") == "cuda" and isinstance(gpu, dict):
            return gpu.get("name")
        return self.environment.get("cpu_model")

    @property
    def gpus(self) -> int | None:
        """`hardware.count`; None where the run does not say."""
        hardware = self.config.get("hardware")
        count = hardware.get("count") if isinstance(hardware, dict) else None
        return count if isinstance(count, int) and count > 0 else None

    def label(self, headers: dict[str, str]) -> str:
        """`block_size 16, rate 2`: what tells this run from the others; empty for a lone one."""
        return ", ".join(
            str(value) if name in ("run", "times") else f"{headers[name]} {value}"
            for name, value in self.options.items()
            if name in headers
        )

    def idealised(self, allocator: str) -> bool:
        """Whether the allocator reads the output length, which no server knows beforehand."""
        return self._knobs(allocator).get("reservation") in ("oracle", "pow2")

    def prefix_index(self, allocator: str) -> str | None:
        """`hash` or `radix`; None where the allocator finds no prefixes."""
        index = self._knobs(allocator).get("prefix_index")
        return None if index in (None, "none") else str(index)

    def title(self, allocator: str) -> str:
        """The allocator's name, and its prefix index where neither name nor options say it."""
        index = self.prefix_index(allocator)
        said = f"allocators.{allocator}.prefix_index" in self.options or index == allocator
        return allocator if index is None or said else f"{allocator} ({index})"

    def _knobs(self, allocator: str) -> dict[str, Any]:
        allocators = self.config.get("allocators")
        knobs = allocators.get(allocator) if isinstance(allocators, dict) else None
        return knobs if isinstance(knobs, dict) else {}


@dataclass
class Collection:
    """Everything in one report. `headers` maps each varied option to its short name."""

    runs: list[Run]
    headers: dict[str, str]

    @property
    def single(self) -> bool:
        return len(self.runs) == 1

    @property
    def one_row_each(self) -> bool:
        """Whether runs can only be compared with each other, for each has one allocator."""
        return not self.single and all(len(run.rows) <= 1 for run in self.runs)


def load_collection(paths: Iterable[str | Path]) -> Collection:
    """Read every run of the paths; raises ReportError where there is none, or one is unreadable."""
    paths = [Path(path) for path in paths]
    runs: list[Run] = []
    recorded = len(paths) == 1
    for path in paths:
        runs += [_read_run(path)] if _is_run(path) else _read_sweep(path)
    if not recorded or any(run.options is _UNKNOWN for run in runs):
        _infer_options(runs)
    names = varied(run.options for run in runs)
    if len(runs) > 1 and (not names or (len(names) > _MOST_VARIED and not recorded)):
        for run, name in zip(runs, _names(runs), strict=True):
            run.options = {"run": name}
        names = ["run"]
    mixed = len({run.measured for run in runs}) > 1
    if mixed and not any(name.partition(".")[0] == "executor" for name in names):
        for run in runs:
            run.options["times"] = "measured" if run.measured else "simulated"
        names.append("times")
    _divide_by_gpus(runs)
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


_UNKNOWN: dict[str, Any] = {}


def _is_run(path: Path) -> bool:
    return not path.is_dir() or (path / SUMMARY).exists()


def _read_run(path: Path, name: str | None = None) -> Run:
    try:
        summary = load_summary(path)
    except ResultsError as error:
        raise ReportError(str(error)) from error
    folder = path if path.is_dir() else path.parent
    rows = summary_rows(summary)
    return Run(
        name or folder.resolve().name,
        folder,
        summary["config"],
        summary["environment"],
        rows + _never_run(summary["config"], rows),
        _UNKNOWN,
        _command(folder),
        {row["allocator"]: row["totals"] for row in summary["rows"]},
    )


def _never_run(config: dict[str, Any], rows: Sequence[Row]) -> list[Row]:
    """A row for each allocator that was chosen and has none, for the run was killed before."""
    chosen = config.get("allocators")
    known = {row.allocator for row in rows}
    return [
        Row(name, "error", "did not end: the run was killed before")
        for name in (chosen if isinstance(chosen, dict) else {})
        if name not in known
    ]


def _read_sweep(path: Path) -> list[Run]:
    from harness.results.sweep import read_sweep

    jobs: dict[str, dict[str, Any]] = {}
    failed: dict[str, Row] = {}
    for entry in read_sweep(path):
        jobs[entry.job] = entry.overrides
        if not (path / entry.job / SUMMARY).exists() or entry.row.allocator == "-":
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
