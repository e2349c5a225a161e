"""Notes to the user, each told once."""

from __future__ import annotations

import sys
from collections.abc import Iterable


class Notes:
    """Prints notes, each once however many jobs have it."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, notes: Iterable[str]) -> None:
        """Print those that have not been told yet."""
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                print(f"note: {note}", file=sys.stderr)
