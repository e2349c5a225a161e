"""The table that a run or a sweep ends in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.cli.columns import (
    COLUMNS,
    GOOD,
    HIT,
    MARK,
    NARROW,
    SPARED,
    Column,
    legend,
    limits_line,
)
from harness.results.best import best_rows
from harness.results.outputs import outputs_sentence
from harness.results.runlog import ResultRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: letters of an option's name that stand in one line
LONGEST_NAME = 12
#: a status in the room of a number; the line below the table says it in full
SHORT_STATUS = {"unsupported": "unsup."}
# Wide enough for any table of ours: text that is piped is cut by its reader, never by us.
PIPED_WIDTH = 400


def print_table(
    rows: Sequence[ResultRow],
    *,
    leading: Sequence[dict[str, str]] | None = None,
    columns: Sequence[Column] = COLUMNS,
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Print one line a row, the best of each column in bold and with a star.

    leading: for each row, extra cells by header, put in front (the options of a sweep).
    file: where to, standard output by default; without a terminal, no colour and no wrapping.
    width: columns of the terminal, measured by default.
    """
    console = console_for(file, width)
    for column in (GOOD, HIT):
        if any(row.metrics.get(column.metric) is not None for row in rows):
            columns = (*columns, column)
    limit = max(NARROW, console.width) if console.is_terminal or width else NARROW
    table, shown = _fitted(console, rows, leading, columns, limit)
    console.print(table, width=limit, crop=False)
    if any(row.ok for row in rows):
        by_run = 1 < len(set(_runs(rows, leading))) < len(rows)
        console.print(legend(shown, columns, by_run), style="dim", highlight=False)
    limits = None if leading else limits_line(rows)
    if limits:
        console.print(limits, style="dim", markup=False, highlight=False)
    outputs = None if leading else outputs_sentence(rows)
    if outputs:
        console.print(f"outputs: {outputs}", markup=False, highlight=False)
    for index, row in enumerate(rows):
        if not row.ok:
            where = " ".join((leading[index] if leading else {}).values())
            label = f"{row.allocator} {where}".strip()
            reason = row.reason or "no reason given"
            console.print(f"{label}: {row.status}: {reason}", markup=False, highlight=False)


def print_location(run_dir: Path | str, *, file: IO[str] | None = None) -> None:
    """Say in one line where the results are."""
    console = console_for(file)
    console.print(f"Results in {run_dir}", markup=False, highlight=False, soft_wrap=True)


def _runs(rows: Sequence[ResultRow], leading: Sequence[dict[str, str]] | None) -> list[tuple]:
    """Of each row what tells its run from the others."""
    return [tuple(cells.items()) for cells in leading] if leading else [()] * len(rows)


def _fitted(
    console: Console,
    rows: Sequence[ResultRow],
    leading: Sequence[dict[str, str]] | None,
    columns: Sequence[Column],
    limit: int,
) -> tuple[Table, list[Column]]:
    """Return a table of at most `limit` characters a line, and the columns that it shows."""
    from rich.measure import Measurement

    wide = console.options.update(width=PIPED_WIDTH)
    shown = list(columns)
    spared = [c for name in SPARED for c in columns if c.metric == name]
    spared.sort(key=lambda column: len({_text(row, column) for row in rows}) > 1)
    while True:
        table = _table(rows, leading, shown)
        if Measurement.get(console, wide, table).maximum <= limit or not spared:
            return table, shown
        shown.remove(spared.pop(0))


def _text(row: ResultRow, column: Column) -> str:
    return column.text(row.metrics.get(column.metric))


def _table(
    rows: Sequence[ResultRow], leading: Sequence[dict[str, str]] | None, columns: Sequence[Column]
) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    headers = list(dict.fromkeys(name for cells in leading or () for name in cells))
    for header in headers:
        table.add_column(Text(_two_lines(header)), overflow="fold", vertical="bottom")
    table.add_column("allocator", overflow="fold", vertical="bottom")
    for column in columns:
        # The space stands over the place of the star.
        header = "\n".join(f"{line} " for line in column.header.split("\n"))
        table.add_column(header, justify="right", no_wrap=True)
    runs = _runs(rows, leading)
    best = [best_rows(rows, runs, column.metric, column.better, column.text) for column in columns]
    for index, row in enumerate(rows):
        cells = [Text(leading[index].get(name, "")) for name in headers] if leading else []
        cells.append(Text(row.allocator))
        if not row.ok:
            table.add_row(*cells, Text(SHORT_STATUS.get(row.status, row.status) + " ", style="red"))
            continue
        for column, winners in zip(columns, best, strict=True):
            text = _text(row, column)
            # The space keeps the digits of starred and plain values in line.
            starred = index in winners
            cells.append(Text(text + (MARK if starred else " "), style="bold" if starred else ""))
        table.add_row(*cells)
    return table


def _two_lines(name: str) -> str:
    """Return a long name of an option, broken in two where a word of it ends."""
    breaks = [at for at, letter in enumerate(name, start=1) if letter in "_." and at < len(name)]
    if len(name) <= LONGEST_NAME or not breaks:
        return name
    at = min(breaks, key=lambda at: abs(at - len(name) / 2))
    return f"{name[:at]}\n{name[at:]}"


def console_for(file: IO[str] | None = None, width: int | None = None) -> Console:
    """Return a console; where there is no terminal it neither colours nor wraps."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, width=width, emoji=False)
    if width is None and not console.is_terminal:
        console.width = PIPED_WIDTH
    return console
