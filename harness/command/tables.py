"""Tables that commands print: aligned text for a screen, and Markdown for a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from io import StringIO

#: wider than any table, so that nothing is wrapped or cut off
_NO_LIMIT = 1_000_000
_BARE_PIPE = re.compile(r"(?<!\\)\|")


def text_table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    align: str | None = None,
    width: int | None = None,
) -> str:
    """Return a table in aligned columns, without a line's end after the last row.

    head: one title a column, which may have several lines.
    rows: one value a column; see `cell_text` for how it is written.
    align: one letter a column, `l` or `r`; without it the first is left and the others are right.
    width: letters of a line at most; text in columns that are left-aligned is then wrapped.

    Without it a line is as wide as it must be and ends in no blanks: it can be piped.
    """
    # Not with the module: a command that prints no table need not wait for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title, right in zip(head, _right_aligned(align, len(head)), strict=True):
        keeps = right or width is None
        table.add_column(Text(title), justify="right" if right else "left", no_wrap=keeps)
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    screen = StringIO()
    Console(file=screen, width=width or _NO_LIMIT, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in screen.getvalue().splitlines())


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], align: str | None = None
) -> str:
    r"""Return a Markdown table whose columns are aligned in its source too, without a last newline.

    The arguments are those of `text_table`; without rows it is the head alone. A `|` that is not
    yet written as `\|` is escaped and a line's end becomes a blank; all other markup is left alone.
    """
    right = _right_aligned(align, len(head))
    lines = [[_markdown_cell(value) for value in row] for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + (":" if r else "-") for width, r in zip(widths, right, strict=True)]
    text = []
    for line in (lines[0], rule, *lines[1:]):
        cells = (
            cell.rjust(width) if r else cell.ljust(width)
            for cell, width, r in zip(line, widths, right, strict=True)
        )
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def cell_text(value: object) -> str:
    """Return a value as it stands in a table: `-` for None, yes or no, floats in four digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown_cell(value: object) -> str:
    return _BARE_PIPE.sub(r"\\|", " ".join(cell_text(value).splitlines()))


def _right_aligned(align: str | None, columns: int) -> list[bool]:
    letters = "l" + "r" * (columns - 1) if align is None else align
    if len(letters) != columns or not set(letters) <= {"l", "r"}:
        raise ValueError(f"align {letters!r} is not one of l and r for each of {columns} columns")
    return [letter == "r" for letter in letters]
