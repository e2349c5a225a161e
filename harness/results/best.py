"""Which rows of a table are best in a column: one rule for the screen and for reports."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from harness.results.metrics import Direction
from harness.results.runlog import ResultRow

Value = float | int | None


def best_rows(
    rows: Sequence[ResultRow],
    runs: Sequence[Hashable],
    metric: str,
    direction: Direction,
    text: Callable[[Value], str],
) -> set[int]:
    """Indices of the rows that are best within their run, as it is printed by `text`.

    `runs` says of each row which run it is of. Where every run has one row all are compared. None
    is best where the metric has no direction or nothing is better than anything else. Rows that
    print the same are tied: a mark for a digit that nobody sees would be noise.
    """
    if len(set(runs)) == len(rows):
        runs = [0] * len(rows)
    groups: dict[Hashable, dict[int, float]] = {}
    for index, (run, row) in enumerate(zip(runs, rows, strict=True)):
        value = row.metrics.get(metric) if row.ok else None
        if value is not None:
            groups.setdefault(run, {})[index] = value
    found: set[int] = set()
    for values in groups.values():
        texts = {index: text(value) for index, value in values.items()}
        if direction != "none" and len(set(texts.values())) > 1:
            best = (max if direction == "higher" else min)(values, key=values.__getitem__)
            found |= {index for index, each in texts.items() if each == texts[best]}
    return found
