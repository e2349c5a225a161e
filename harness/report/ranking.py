"""How rows are ranked: output tokens a second first, then the mean normalized latency."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.numbers import spoken
from harness.results.runlog import ResultRow

#: differences below this share decide nothing
CLOSE = 0.01


def rank(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Best first; those within CLOSE of the leader by latency."""
    ordered = sorted(rows, key=output, reverse=True)
    top = output(ordered[0])
    near = [row for row in ordered if output(row) >= (1 - CLOSE) * top]
    return sorted(near, key=latency) + ordered[len(near) :]


def output(row: ResultRow) -> float:
    """Output tokens a second."""
    return float(row.metrics.get("output_tokens_per_s") or 0.0)


def latency(row: ResultRow) -> float:
    """Mean normalized latency, s/token; infinite where no request finished."""
    value = row.metrics.get("normalized_latency_mean_s")
    return float("inf") if value is None else float(value)


def speed(row: ResultRow) -> str:
    """`800 output tokens/s`."""
    return f"{spoken(output(row))} output tokens/s"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
