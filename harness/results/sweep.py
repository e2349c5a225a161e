"""A sweep: the rows of all its jobs, read back from their directories and kept as one table.

`sweep.json` and `sweep.csv` hold each row of each job with the options that the job was given.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.results.atomic import write_text
from harness.results.errors import ResultsError
from harness.results.metrics import METRICS
from harness.results.options import flat, varied
from harness.results.outcome import read_outcome
from harness.results.reader import load_summary, summary_rows
from harness.results.runlog import ResultRow
from harness.results.writer import SCHEMA_VERSION, SUMMARY, plain

SWEEP_JSON, SWEEP_CSV = "sweep.json", "sweep.csv"
#: of a job whose process was killed, or a job that goes on
CUT_SHORT = "it has not ended: interrupted, killed, or running still"
#: levels of folders that a sweep has at most, and folders in it that are no jobs
MOST_DEPTH, MOST_OTHER_FOLDERS = 6, 500


@dataclass
class SweepRow:
    """One allocator of one job. `job` is the job's directory below the sweep's."""

    job: str
    overrides: dict[str, Any]
    row: ResultRow

    def option(self, name: str) -> str:
        """Return the value of an option as text, empty where the job was not given it."""
        return _cell(self.overrides.get(name))


def read_sweep(sweep_dir: Path) -> list[SweepRow]:
    """Return every row of every job below `sweep_dir`, jobs as Hydra numbered them.

    A job without a readable summary is a row of status `error` with its reason. A job whose options
    Hydra did not record has those in which the configurations differ.
    """
    jobs = in_order(sweep_dir, job_dirs(sweep_dir))
    rows, configs = [], {}
    for job in jobs:
        name = job.relative_to(sweep_dir).as_posix()
        overrides = _recorded_overrides(job)
        try:
            summary = load_summary(job)
        except ResultsError as error:
            outcome = read_outcome(job)
            told = outcome.error if outcome is not None else None
            if outcome is None and not (job / SUMMARY).exists():
                told = CUT_SHORT
            reason = (told or str(error)).replace(f"{sweep_dir}/", "")
            rows.append(SweepRow(name, overrides or {}, ResultRow("-", "error", reason)))
            continue
        if overrides is None:
            configs[name] = flat(summary["config"])
        found = summary_rows(summary) + _killed(summary)
        rows += [SweepRow(name, overrides or {}, row) for row in found]
    differing = varied(configs.values())
    for row in rows:
        config = configs.get(row.job, {})
        row.overrides.update({name: config[name] for name in differing if name in config})
    return rows


def _killed(summary: dict[str, Any]) -> list[ResultRow]:
    """Return a row for each allocator that a summary's run did not come to."""
    ended = {row["allocator"] for row in summary["rows"]}
    planned = summary["config"].get("allocators")
    return [
        ResultRow(name, "error", CUT_SHORT)
        for name in (planned if isinstance(planned, dict) else {})
        if name not in ended
    ]


def write_sweep(sweep_dir: Path, rows: Sequence[SweepRow]) -> None:
    """Write the two files of a sweep; raises `ResultsError`."""
    try:
        write_text(sweep_dir / SWEEP_JSON, _json_text(rows))
        write_text(sweep_dir / SWEEP_CSV, _csv_text(rows))
    except OSError as error:
        raise ResultsError(f"{sweep_dir}: cannot write the sweep: {error}") from error


def job_dirs(sweep_dir: Path) -> set[Path]:
    """The folders below that a job wrote; raises `ResultsError` where this can be no sweep."""
    jobs: set[Path] = set()
    others = 0
    level = [sweep_dir]
    for _ in range(MOST_DEPTH):
        level = [folder for parent in level for folder in _folders(parent)]
        found = {folder for folder in level if _is_job(folder)}
        jobs |= found
        others += len(level) - len(found)
        if others > MOST_OTHER_FOLDERS:
            raise ResultsError(
                f"{sweep_dir}: neither a run nor a sweep: more than {MOST_OTHER_FOLDERS} folders "
                "below it are no runs"
            )
    return jobs


def in_order(sweep_dir: Path, jobs: Iterable[Path]) -> list[Path]:
    """Return the folders of jobs as Hydra numbered them."""
    return sorted(jobs, key=lambda job: _job_order(sweep_dir, job))


def _folders(parent: Path) -> list[Path]:
    """The folders in one that may be jobs or hold some; none where it may not be read."""
    try:
        with os.scandir(parent) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and entry.name != "figures"
            ]
    except OSError:
        return []
    return [parent / name for name in names]


def _is_job(folder: Path) -> bool:
    # Unlike Path.exists this is False, and no error, where it may not be asked.
    return any(os.path.exists(folder / name) for name in (SUMMARY, ".hydra/overrides.yaml"))


def _job_order(sweep_dir: Path, job: Path) -> tuple[Any, ...]:
    name = job.relative_to(sweep_dir).as_posix()
    natural = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    # Split alternates text and digits, so that like is compared with like.
    if name.isdigit():
        return (0, int(name), natural)
    # What Hydra numbered; where a sweep was resumed, from the job at which it went on.
    number = _read_yaml(job / ".hydra" / "hydra.yaml")
    try:
        return (0, int(number["hydra"]["job"]["num"]), natural)
    except (KeyError, TypeError, ValueError):
        return (1, 0, natural)


def recorded_lines(job: Path) -> list[str]:
    """Return the overrides that Hydra recorded for a job, as they were given."""
    lines = _read_yaml(job / ".hydra" / "overrides.yaml")
    return [str(line) for line in lines] if isinstance(lines, list) else []


def _recorded_overrides(job: Path) -> dict[str, Any] | None:
    """Return the options that Hydra recorded for a job, numbers as such; None if it did not."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not (job / ".hydra" / "overrides.yaml").is_file():
        return None
    try:
        parsed = OverridesParser.create().parse_overrides(recorded_lines(job))
    except HydraException:
        return None
    overrides: dict[str, Any] = {}
    for override in parsed:
        if override.key_or_group.startswith("sweep."):
            continue  # of the sweep as a whole
        value = "(removed)" if override.is_delete() else override.value()
        text = not isinstance(value, int | float) or isinstance(value, bool)
        if text and not override.is_delete():
            value = override.get_value_string()
        overrides[override.key_or_group] = value
    return overrides


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _json_text(rows: Sequence[SweepRow]) -> str:
    sweep = {
        "schema_version": SCHEMA_VERSION,
        "varied": varied(row.overrides for row in rows),
        "rows": [{"job": row.job, "overrides": row.overrides, **asdict(row.row)} for row in rows],
    }
    return json.dumps(plain(sweep), indent=2, allow_nan=False) + "\n"


def _csv_text(rows: Sequence[SweepRow]) -> str:
    options = list(dict.fromkeys(name for row in rows for name in row.overrides))
    known = [metric.name for metric in METRICS]
    metrics = list(dict.fromkeys([*known, *(name for row in rows for name in row.row.metrics)]))
    # An option named as one of our own columns keeps a name of its own.
    fixed = {"job", "allocator", "status", "reason", *metrics}
    titles = [f"option.{name}" if name in fixed else name for name in options]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["job", *titles, "allocator", "status", "reason", *metrics])
    for row in rows:
        cells = [row.option(name) for name in options]
        values = [_cell(row.row.metrics.get(name)) for name in metrics]
        result = row.row
        table.writerow(
            [row.job, *cells, result.allocator, result.status, result.reason or "", *values]
        )
    return text.getvalue()
