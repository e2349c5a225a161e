"""What became of one job of a sweep: `job.json`, the last file that a job writes.

A job without one has not ended: it was interrupted, or its process was killed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.results.atomic import write_text
from harness.results.errors import ResultsError

JOB = "job.json"


@dataclass(frozen=True)
class Outcome:
    """One job, ended.

    key: the hash of its configuration and of the code that ran it.
    status: the exit status that it would have alone.
    seconds: how long it took, on the wall's clock.
    finished: whether its rows are those that it would have again; a fault is not.
    notes: what the user should know, a line each.
    error: why it left no results, in one line, if so.
    """

    key: str
    status: int
    seconds: float
    finished: bool
    notes: list[str] = field(default_factory=list)
    error: str | None = None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the file; raises `ResultsError`."""
    try:
        write_text(folder / JOB, json.dumps(asdict(outcome), indent=2) + "\n")
    except OSError as error:
        raise ResultsError(f"{folder}: cannot write the results: {error}") from error


def read_outcome(folder: Path) -> Outcome | None:
    """Return what became of the job of a folder; None where it has not ended."""
    try:
        return Outcome(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
