"""The recorded step logs of vAttention's manager that are at hand, and how each run was set up."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.allocators.virtual.slow_manager import Shape, SlowManager
from tests.allocators.virtual.slow_scheduler import Request, SlowScheduler
from tests.places import SHARED_DATA


@dataclass(frozen=True)
class Setup:
    """What a run is made from; `requests` are (id, prompt tokens, output tokens) in order of id.

    `background`: the asynchronous step.  `late_release`: a preempted request keeps its slot for
    one iteration more.
    """

    shape: Shape
    groups: int
    background: bool
    deferred: bool
    late_release: bool
    requests: list[tuple[int, int, int]]

    @property
    def watermark(self) -> int:
        return int(0.01 * self.groups)

    def modelled(
        self,
    ) -> Iterator[dict[str, Any]]:
        """Yield the lines that the slow model makes of it."""
        model = SlowScheduler(
            SlowManager(self.shape, self.groups, self.deferred),
            [Request(*request) for request in self.requests],
            self.watermark,
            self.background,
            self.late_release,
        )
        while not model.done:
            yield model.step()


@dataclass(frozen=True)
class Run:
    """One entry of a `runs.json`, with the files beside it."""

    folder: Path
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.entry['set']}-{self.entry['run']}"

    @property
    def setup(self) -> Setup:
        e = self.entry
        shape = Shape(
            e["layers"], e["kv_heads"], e["head_dim"], e["max_len"], e["batch"], e["page"],
            e["megacache"],
        )  # fmt: skip
        groups = shape.groups(e["pool_bytes"])
        late = e["release"] != "same"
        return Setup(shape, groups, e["mode"] == "async", e["deferred"], late, self._requests())

    def lines(self) -> Iterator[dict[str, Any]]:
        with gzip.open(self.folder / f"{self.entry['run']}.jsonl.gz", "rt") as lines:
            yield from map(json.loads, lines)

    def _requests(self) -> list[tuple[int, int, int]]:
        with (self.folder / "requests.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        columns = ("id", "prompt_tokens", "output_tokens")
        return sorted(tuple(int(row[column]) for column in columns) for row in rows)


def runs() -> list[Run]:
    """Return every run of every `runs.json` among the public data."""
    tables = sorted(SHARED_DATA.glob("vattention_steps*/**/runs.json"))
    return [Run(table.parent, entry) for table in tables for entry in json.loads(table.read_text())]


#: for `parametrize`: each run that is at hand, or a reason to skip
EVERY_RUN = [pytest.param(run, id=run.name) for run in runs()] or [
    pytest.param(None, marks=pytest.mark.skip("the vattention_steps data is not at hand"))
]
