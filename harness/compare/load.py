"""From paths to cases: one configuration each, with every repeat of it that was found.

A path is a `summary.json`, a run directory, a directory of run directories (a sweep, a suite), or a
directory of baseline files, which are summaries under other names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.compare.conditions import full_identity
from harness.errors import InputError
from harness.results.errors import ResultsError
from harness.results.reader import load_summary
from harness.results.writer import SUMMARY

Number = float | int | None


class CompareError(InputError):
    """The comparison cannot be made; the message is one clear line."""


@dataclass
class Samples:
    """One allocator of one case: its status, and each metric's value in every repeat.

    `digests`: of real runs, what was emitted; more than one if repeats differ.
    """

    status: str
    reason: str | None
    metrics: dict[str, list[Number]] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass
class Case:
    """One configuration: repeats of it are samples of its rows. `rows` maps allocators."""

    name: str
    config: dict[str, Any]
    environments: list[dict[str, Any]]
    rows: dict[str, Samples]

    @property
    def real(self) -> bool:
        """Whether a model was run, so that all figures are measured."""
        executor = self.config.get("executor")
        return isinstance(executor, dict) and executor.get("name") == "model"


def load_cases(paths: Iterable[str | Path]) -> list[Case]:
    """Every case below the paths; runs of one identical configuration are repeats of one case.

    Raises CompareError where a path holds no readable summary.
    """
    runs: list[tuple[str, dict[str, Any]]] = []
    for path in paths:
        runs += _runs(Path(path))
    grouped: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, summary in runs:
        grouped.setdefault(full_identity(summary["config"]), []).append((name, summary))
    cases = [_case(group) for group in grouped.values()]
    _make_names_differ(cases)
    return cases


def _runs(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(name, summary) of each run at or below a path; the name of a lone one is its workload."""
    if not path.is_dir() or (path / SUMMARY).exists():
        summary = _load(path)
        return [(_workload(summary), summary)]
    below = [found.parent for found in (*path.glob(f"*/{SUMMARY}"), *path.glob(f"*/*/{SUMMARY}"))]
    started = [found.parents[1] for found in path.glob("*/.hydra/overrides.yaml")]
    folders = sorted(
        folder
        for folder in {*below, *started}
        if not any(part.startswith(".") for part in folder.relative_to(path).parts)
    )
    if folders:
        return [(folder.relative_to(path).as_posix(), _load(folder)) for folder in folders]
    files = sorted(path.glob("*.json"))
    if files:
        return [(file.stem, _load(file)) for file in files]
    raise CompareError(f"{path}: holds no {SUMMARY}, no run directories and no baselines")


def _load(path: Path) -> dict[str, Any]:
    try:
        return load_summary(path)
    except ResultsError as error:
        raise CompareError(str(error)) from error


def _workload(summary: dict[str, Any]) -> str:
    workload = summary["config"].get("workload")
    name = workload.get("name") if isinstance(workload, dict) else None
    return str(name) if name else "run"


def _case(group: list[tuple[str, dict[str, Any]]]) -> Case:
    rows: dict[str, Samples] = {}
    for _, summary in group:
        for row in summary["rows"]:
            name = row["allocator"]
            held = rows.setdefault(name, Samples(row["status"], row["reason"]))
            if row["status"] != "ok":
                # One failed repeat is a failure: the others do not make it whole.
                held.status, held.reason = row["status"], row["reason"]
                continue
            if row["output_digest"]:
                held.digests.add(row["output_digest"])
            for metric, value in row["metrics"].items():
                held.metrics.setdefault(metric, []).append(value)
    name, first = group[0]
    return Case(name, first["config"], [summary["environment"] for _, summary in group], rows)


def _make_names_differ(cases: list[Case]) -> None:
    seen: dict[str, int] = {}
    for case in cases:
        seen[case.name] = seen.get(case.name, 0) + 1
        if seen[case.name] > 1:
            case.name = f"{case.name}#{seen[case.name]}"
