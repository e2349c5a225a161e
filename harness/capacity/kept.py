"""Observations that are kept, each in a file named by the hash of its run."""

from __future__ import annotations

import json
from pathlib import Path

from harness.capacity.probe import Observation
from harness.results.atomic import write_text
from harness.results.writer import plain


class Kept:
    """A folder of observations; several questions may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Observation | None:
        """Return what is kept of a run; None if nothing is, or nothing that can be read."""
        try:
            return Observation(**json.loads(self._path(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: str, seen: Observation) -> None:
        """Keep an observation.  Raises `OSError`."""
        self._path(key).parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path(key), json.dumps(plain(seen.as_dict()), allow_nan=False) + "\n")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
