"""The table that a run or a sweep ends in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.results.best import best_rows
from harness.results.metrics import BY_NAME
from harness.results.numbers import short_number
from harness.results.outputs import outputs_sentence
from harness.results.runlog import Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MARK = "*"
# Wide enough for any table of ours: text that is piped is cut by its reader, never by us.
PIPED_WIDTH = 400


@dataclass(frozen=True)
class Column:
    """A metric on the screen: `header` may break into two lines, `scale` multiplies the value."""

    metric: str
    header: str
    scale: float = 1.0

    def text(self, value: float | int | None) -> str:
        """The value in at most six characters or so, `-` where it is undefined."""
        if value is None:
            return "-"
        if isinstance(value, int):
            return str(value)
        return short_number(value * self.scale, decimals=3)


COLUMNS: tuple[Column, ...] = (
    Column("token_share", "token\n%", 100.0),
    Column("saturated_token_share", "sat.\n%", 100.0),
    Column("mean_batch", "mean\nbatch"),
    Column("requests_per_s", "req/s"),
    Column("output_tokens_per_s", "out\ntok/s"),
    Column("ttft_p50_s", "TTFT\np50 s"),
    Column("normalized_latency_mean_s", "norm.\nms", 1000.0),
    Column("preemptions", "pre-\nempt"),
    Column("sharing_saved", "saved\n%", 100.0),
)
#: shown where a row has a prefix cache
HIT = Column("prefix_hit_rate", "hit\n%", 100.0)
LEGEND = (
    f"{MARK} best of its column. token: share of the pool that holds live KV; sat.: the\n"
    "same while requests wait for memory; norm.: mean end-to-end ms per output token;\n"
    "saved: blocks saved by sharing."
)
HIT_LEGEND = " hit: prompt tokens found in the prefix cache."


def print_table(
    rows: Sequence[Row],
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
    cached = columns is COLUMNS and any(row.metrics.get(HIT.metric) is not None for row in rows)
    if cached:
        columns = (*columns, HIT)
    console.print(_table(rows, leading, columns), crop=False)
    if any(row.ok for row in rows):
        legend = LEGEND + HIT_LEGEND if cached else LEGEND
        if 1 < len(set(_runs(rows, leading))) < len(rows):
            legend = legend.replace("best of its column", "best of its column and run")
        console.print(legend, style="dim", highlight=False)
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


def _runs(rows: Sequence[Row], leading: Sequence[dict[str, str]] | None) -> list[tuple]:
    """Of each row what tells its run from the others."""
    return [tuple(cells.items()) for cells in leading] if leading else [()] * len(rows)


def _table(
    rows: Sequence[Row], leading: Sequence[dict[str, str]] | None, columns: Sequence[Column]
) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    headers = list(dict.fromkeys(name for cells in leading or () for name in cells))
    for header in headers:
        table.add_column(Text(header), overflow="fold", vertical="bottom")
    table.add_column("allocator", overflow="fold", vertical="bottom")
    for column in columns:
        # The space stands over the place of the star.
        header = "\n".join(f"{line} " for line in column.header.split("\n"))
        table.add_column(header, justify="right", no_wrap=True)
    runs = _runs(rows, leading)
    best = [
        best_rows(rows, runs, column.metric, BY_NAME[column.metric].direction, column.text)
        for column in columns
    ]
    for index, row in enumerate(rows):
        cells = [Text(leading[index].get(name, "")) for name in headers] if leading else []
        cells.append(Text(row.allocator))
        if not row.ok:
            table.add_row(*cells, Text(row.status + " ", style="red"))
            continue
        for column, winners in zip(columns, best, strict=True):
            text = column.text(row.metrics.get(column.metric))
            # The space keeps the digits of starred and plain values in line.
            starred = index in winners
            cells.append(Text(text + (MARK if starred else " "), style="bold" if starred else ""))
        table.add_row(*cells)
    return table


def console_for(file: IO[str] | None = None, width: int | None = None) -> Console:
    """Return a console; where there is no terminal it neither colours nor wraps."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, width=width, emoji=False)
    if width is None and not console.is_terminal:
        console.width = PIPED_WIDTH
    return console
