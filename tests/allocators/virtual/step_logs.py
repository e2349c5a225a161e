"""The recorded step logs of vAttention's manager that are at hand, and how each run was set up."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.allocators.virtual.slow_manager import Shape
from tests.places import SHARED_DATA


@dataclass(frozen=True)
class Run:
    """One entry of a `runs.json`, with the files beside it."""

    folder: Path
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.entry['set']}-{self.entry['run']}"

    @property
    def shape(self) -> Shape:
        e = self.entry
        return Shape(
            e["layers"], e["kv_heads"], e["head_dim"], e["max_len"], e["batch"], e["page"],
            e["megacache"],
        )  # fmt: skip

    @property
    def background(self) -> bool:
        return self.entry["mode"] == "async"

    @property
    def late_release(self) -> bool:
        return self.entry["release"] != "same"

    def lines(self) -> Iterator[dict[str, Any]]:
        with gzip.open(self.folder / f"{self.entry['run']}.jsonl.gz", "rt") as lines:
            yield from map(json.loads, lines)

    def requests(self) -> list[tuple[int, int, int]]:
        """Return (id, prompt tokens, output tokens) of each, in order of id."""
        with (self.folder / "requests.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        columns = ("id", "prompt_tokens", "output_tokens")
        return sorted(tuple(int(row[column]) for column in columns) for row in rows)


def runs() -> list[Run]:
    """Return every run of every `runs.json` among the public data."""
    tables = sorted(SHARED_DATA.glob("vattention_steps*/**/runs.json"))
    return [Run(table.parent, entry) for table in tables for entry in json.loads(table.read_text())]
