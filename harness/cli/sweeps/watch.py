"""What is said while a sweep goes on: a line for each job that has ended, and the time left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from harness.cli.notes import Notes
from harness.cli.sweeps.joblines import JobLines
from harness.cli.sweeps.plan import Place, Sweep
from harness.results import ResultRow, ResultsError, load_summary, summary_rows
from harness.results.outcome import JOB, Outcome, read_outcome
from harness.results.sweep import recorded_lines

#: seconds between two looks at the folder of the sweep
LOOK_S = 0.25


class Watch:
    """Looks at what the jobs leave, wherever they run, and says it once.

    total: how many jobs there are, None where the sweeper decides as it goes.
    statuses: of the jobs that have been told.
    """

    def __init__(
        self, sweep: Sweep, total: int | None, notes: Notes, statuses: list[int] | None = None
    ) -> None:
        self.statuses = [] if statuses is None else statuses
        self._sweep, self._notes = sweep, notes
        self._pending = {place.folder: place for place in sweep.missing}
        self._told: set[str] = set()
        before = len(sweep.places) - len(self._pending)
        self._lines = JobLines(sweep.swept, total, before)
        self._lock = threading.Lock()

    def look(self) -> None:
        """Say what has ended since the last look."""
        with self._lock:
            for name, place in self._ended():
                outcome = read_outcome(self._sweep.folder / name)
                if outcome is not None and (place is None or outcome.key == place.key):
                    self._pending.pop(name, None)
                    self._told.add(name)
                    self._tell(name, place, outcome)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look again and again while the block lasts, and once after it."""
        over = threading.Event()

        def look_on() -> None:
            while not over.wait(LOOK_S):
                self.look()

        thread = threading.Thread(target=look_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def _ended(self) -> list[tuple[str, Place | None]]:
        """The folders that may hold an outcome not told yet, in the order of the points."""
        if self._sweep.places:
            return list(self._pending.items())
        found = {path.parent.name for path in self._sweep.folder.glob(f"*/{JOB}")}
        numbered = sorted(found - self._told, key=lambda name: (len(name), name))
        return [(name, None) for name in numbered if not name.startswith(".")]

    def _tell(self, name: str, place: Place | None, outcome: Outcome) -> None:
        folder = self._sweep.folder / name
        self.statuses.append(outcome.status)
        self._notes.tell(outcome.notes)
        rows: list[ResultRow] = []
        if outcome.error is None:
            try:
                rows = summary_rows(load_summary(folder))
            except ResultsError as error:
                print(f"error: {error}", file=sys.stderr)
        else:
            print(f"error: job {name}: {outcome.error}", file=sys.stderr)
        overrides = place.overrides if place is not None else recorded_lines(folder)
        print(self._lines.line(overrides, rows), flush=True)
