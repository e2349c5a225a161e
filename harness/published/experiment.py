"""An experiment: its set-ups from `conf/experiment/NAME.yaml`, run, and held to the figures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from harness.published.reference import NOT_RUN, figures
from harness.published.tasks import Found, Sustained, Task

#: from the options of a set-up to what runs it
TaskKind = Callable[[tuple[str, ...]], Task]


@dataclass(frozen=True)
class Experiment:
    """What `conf/experiment/NAME.yaml` says under `published`.

    setups: from a name to options of `harness`, as typed, or to {options, rates: [first, last,
        step], below_ms}, the search for a sustained rate.
    software: profiles that each set-up is run with; none where the clock takes no part.
    data: from a name that options use in braces to a file below the folder of public data.
    """

    name: str
    title: str
    setups: Mapping[str, Any]
    software: tuple[str, ...]
    data: Mapping[str, str]

    def commands(self) -> dict[str, str]:
        """Return what one types for each set-up by itself."""
        texts = {}
        for name, setup in self.setups.items():
            options = setup if isinstance(setup, str) else setup["options"]
            search = "" if isinstance(setup, str) else f" workload.rate={_rates_text(setup)}"
            texts[name] = f"{' '.join(options.split())}{search}"
        return texts

    def missing(self, folder: Path | None) -> str | None:
        """Return why data that are needed are not there, if so."""
        for file in self.data.values():
            if folder is None:
                return f"{file}: no folder of public data is given (data=DIR)"
            if not (folder / file).is_file():
                return f"{file}: not in data={folder}"
        return None

    def tasks(
        self, overrides: tuple[str, ...], folder: Path | None, kind: TaskKind
    ) -> dict[tuple[str, str], Task]:
        """Return what is to be run, by column and set-up."""
        chosen = [o.partition("=")[2] for o in overrides if o.startswith("software=")]
        columns = (chosen[-1],) if chosen else self.software or ("ours",)
        tasks: dict[tuple[str, str], Task] = {}
        for column, (name, setup) in product(columns, self.setups.items()):
            text = setup if isinstance(setup, str) else setup["options"]
            for key, file in self.data.items():
                text = text.replace(f"{{{key}}}", str(folder / file) if folder else file)
            profile = () if chosen or not self.software else (f"software={column}",)
            options = (*shlex.split(text), *profile, *overrides)
            tasks[column, name] = (
                kind(options)
                if isinstance(setup, str)
                else Sustained(options, _rates(setup), float(setup["below_ms"]))
            )
        return tasks


def load(name: str) -> Experiment | None:
    """Return the experiment of this name, or None if there is none that is a published figure."""
    file = files("conf") / "experiment" / f"{name}.yaml"
    if not file.is_file():
        return None
    said = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("published")
    if said is None:
        return None
    return Experiment(
        name,
        said["title"],
        said.get("setups") or {},
        tuple(said.get("software") or ()),
        said.get("data") or {},
    )


class Runs:
    """What the set-ups of one column found; what could not be had is nan, with a reason."""

    def __init__(self, found: Mapping[str, Found]) -> None:
        self._found = found
        self.failures: list[str] = []

    def get(self, setup: str, allocator: str, metric: str) -> float:
        """Return a metric of an allocator in a set-up."""
        row = self._found[setup].get(allocator, {"reason": "not compared"})
        value = row.get(metric)
        if value is not None:
            return float(value)
        reason = f"{setup}: {allocator}: {row.get('reason', f'no {metric}')}"
        if reason not in self.failures:
            self.failures.append(reason)
        return float("nan")

    def found(self, setup: str) -> Found:
        """Return all that a set-up found."""
        return self._found[setup]


#: from what was run to the numbers that are compared, by the row's name in the table of figures
Values = Callable[[Runs], dict[str, float]]


def outcome(experiment: Experiment, columns: Mapping[str, Runs], values: Values) -> dict[str, Any]:
    """Return an experiment's result as it is kept: a row a number, published beside ours."""
    ours = {column: values(runs) for column, runs in columns.items()}
    published = figures().get(experiment.name, {})
    names = list(dict.fromkeys([*published, *(row for found in ours.values() for row in found)]))
    rows = []
    for name in names:
        figure = published.get(name)
        cells = {}
        for column, found in ours.items():
            value = found.get(name, float("nan"))
            if value != value:
                cells[column] = {"value": None, "difference": None, "verdict": NOT_RUN}
            else:
                cells[column] = {
                    "value": value,
                    "difference": figure.difference(value) if figure else None,
                    "verdict": figure.verdict(value) if figure else None,
                }
        row: dict[str, Any] = {"row": name, "published": None, "ours": cells}
        if figure:
            row["published"] = {
                "low": figure.low, "high": figure.high, "unit": figure.unit,
                "accept": figure.accept, "fitted": figure.fitted, "kind": figure.kind,
                "source": figure.source,
            }  # fmt: skip
        rows.append(row)
    failures = {column: runs.failures for column, runs in columns.items() if runs.failures}
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "setups": experiment.commands(),
        "absent": None,
        "failures": failures,
        "rows": rows,
    }


def absent(experiment: Experiment, reason: str) -> dict[str, Any]:
    """Return the result of an experiment whose data are not there."""
    result = outcome(experiment, {"ours": Runs({})}, lambda runs: {})
    return {**result, "absent": reason}


def _rates(setup: Mapping[str, Any]) -> tuple[float, ...]:
    first, last, step = setup["rates"]
    count = round((last - first) / step) + 1
    return tuple(round(first + step * i, 6) for i in range(count))


def _rates_text(setup: Mapping[str, Any]) -> str:
    rates = _rates(setup)
    return f"{rates[0]:g},{rates[1]:g},...,{rates[-1]:g}"
