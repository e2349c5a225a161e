"""Puts the runs of a Hydra multirun into one table: `sweep.json`, `sweep.csv` and the screen.

Configured as `hydra.callbacks.combined_table._target_: harness.results.sweep.CombinedTable`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from hydra.experimental.callback import Callback

from harness.cli.screen import print_location, print_table
from harness.results.atomic import write_text
from harness.results.errors import ResultsError
from harness.results.metrics import METRICS
from harness.results.reader import load_summary, summary_rows
from harness.results.runlog import Row
from harness.results.writer import SCHEMA_VERSION, SUMMARY, plain

SWEEP_JSON, SWEEP_CSV = "sweep.json", "sweep.csv"


@dataclass
class SweepRow:
    """One allocator of one job. `job` is the job's directory below the sweep's."""

    job: str
    overrides: dict[str, Any]
    row: Row


class CombinedTable(Callback):
    """Hydra callback: combine the jobs when a multirun ends."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Read the jobs below `hydra.sweep.dir`, print their table, write the two files."""
        sweep_dir = Path(config.hydra.sweep.dir)
        combine(sweep_dir)
        if config.get("report", "none") != "none":
            from harness.observers.recorders import try_report

            try_report(sweep_dir)


def combine(sweep_dir: str | Path, *, file: IO[str] | None = None) -> list[SweepRow]:
    """Print and write the combined table of a sweep; return its rows in job order.

    A job without a readable summary is a row of status `error` with its reason. Raises ResultsError
    when no job is found or the files cannot be written.
    """
    sweep_dir = Path(sweep_dir)
    rows = read_sweep(sweep_dir)
    if not rows:
        raise ResultsError(f"{sweep_dir}: no run of a sweep found")
    varied = varied_options(rows)
    try:
        write_text(sweep_dir / SWEEP_JSON, _json_text(rows, varied))
        write_text(sweep_dir / SWEEP_CSV, _csv_text(rows))
    except OSError as error:
        raise ResultsError(f"{sweep_dir}: cannot write the sweep: {error}") from error
    headers = _short_headers(varied)
    leading = [
        {headers[name]: _cell(row.overrides.get(name)) for name in varied if name in row.overrides}
        for row in rows
    ]
    print_table([row.row for row in rows], leading=leading, file=file)
    print_location(sweep_dir, file=file)
    return rows


def read_sweep(sweep_dir: Path) -> list[SweepRow]:
    """Every row of every job below `sweep_dir`, jobs in the order in which Hydra numbered them."""
    jobs = sorted(_job_dirs(sweep_dir), key=lambda job: _job_order(sweep_dir, job))
    rows, configs = [], {}
    for job in jobs:
        name = job.relative_to(sweep_dir).as_posix()
        overrides = _recorded_overrides(job)
        try:
            summary = load_summary(job)
        except ResultsError as error:
            reason = str(error).replace(f"{sweep_dir}/", "")
            rows.append(SweepRow(name, overrides or {}, Row("-", "error", reason)))
            continue
        if overrides is None:
            configs[name] = _flat(summary["config"])
        rows += [SweepRow(name, overrides or {}, row) for row in summary_rows(summary)]
    if configs:
        _infer_overrides(rows, configs)
    return rows


def varied_options(rows: Sequence[SweepRow]) -> list[str]:
    """Options whose value is not the same in all jobs, in order of appearance."""
    names = dict.fromkeys(name for row in rows for name in row.overrides)
    return [name for name in names if len({_cell(row.overrides.get(name)) for row in rows}) > 1]


def _job_dirs(sweep_dir: Path) -> set[Path]:
    with_summary = {path.parent for path in sweep_dir.rglob(SUMMARY)}
    started = {path.parents[1] for path in sweep_dir.rglob(".hydra/overrides.yaml")}
    return (with_summary | started) - {sweep_dir}


def _job_order(sweep_dir: Path, job: Path) -> tuple[Any, ...]:
    name = job.relative_to(sweep_dir).as_posix()
    natural = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    # Split alternates text and digits, so that like is compared with like.
    number = _read_yaml(job / ".hydra" / "hydra.yaml")
    try:
        return (0, int(number["hydra"]["job"]["num"]), natural)
    except (KeyError, TypeError, ValueError):
        return (1, 0, natural)


def _recorded_overrides(job: Path) -> dict[str, Any] | None:
    lines = _read_yaml(job / ".hydra" / "overrides.yaml")
    if not isinstance(lines, list):
        return None
    return dict(_parse_override(str(line)) for line in lines)


def _parse_override(line: str) -> tuple[str, Any]:
    name, _, text = line.partition("=")
    if name.startswith("~"):
        return name[1:], "(removed)"
    for number in (int, float):
        try:
            return name.lstrip("+"), number(text)
        except ValueError:
            continue
    return name.lstrip("+"), text


def _infer_overrides(rows: list[SweepRow], configs: dict[str, dict[str, Any]]) -> None:
    """Where Hydra recorded nothing, the options are what differs between the configurations."""
    names = dict.fromkeys(name for config in configs.values() for name in config)
    for name in names:
        if len({_cell(config.get(name)) for config in configs.values()}) < 2:
            continue
        for row in rows:
            if name in configs.get(row.job, {}):
                row.overrides[name] = configs[row.job][name]


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _short_headers(names: Sequence[str]) -> dict[str, str]:
    """The last part of each option's name, or all of it where two would be the same."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return {
        name: part if last.count(part) == 1 and part != "allocator" else name
        for name, part in zip(names, last, strict=True)
    }


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _json_text(rows: Sequence[SweepRow], varied: Sequence[str]) -> str:
    sweep = {
        "schema_version": SCHEMA_VERSION,
        "varied": list(varied),
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
        cells = [_cell(row.overrides.get(name)) for name in options]
        values = [_cell(row.row.metrics.get(name)) for name in metrics]
        result = row.row
        table.writerow(
            [row.job, *cells, result.allocator, result.status, result.reason or "", *values]
        )
    return text.getvalue()
