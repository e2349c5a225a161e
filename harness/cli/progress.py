"""What the user sees while a run goes on: a bar a variant on a terminal, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from harness.cli.table import console_for


@contextmanager
def bar(
    variant: str, requests: int, file: IO[str] | None = None, *, transient: bool = False
) -> Iterator[Callable[[int], None]]:
    """Draw a bar for one variant; the value is told how many of its requests have ended.

    `transient`: nothing of it is left on the screen when the variant has ended.
    """
    file = file or sys.stdout
    if not file.isatty():
        yield lambda ended: None
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("requests"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console_for(file), transient=transient) as bars:
        task = bars.add_task(variant, total=requests)
        yield lambda ended: bars.update(task, completed=ended)
