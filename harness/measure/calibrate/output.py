"""What the command prints: a summary of what was measured, and the errors."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from harness.cost.calibrated import Calibrated
from harness.cost.calibration import Calibration
from harness.cost.roofline import Work
from harness.cost.shapes import ModelShape
from harness.measure.calibrate.compare import Comparison, Error

HEAD = ("steps", "count", "median error", "p90 error", "simulated / measured time")


def summary(calibration: Calibration, model: ModelShape) -> str:
    """Return what a few steps take by the file, in milliseconds."""
    cost = Calibrated(model, calibration)
    longest = model.max_context
    rows = []
    for batch, context in ((1, 256), (16, 256), (64, 256)):
        work = Work(
            decode_seqs=batch,
            decode_context_tokens=batch * min(context, longest),
            sampled=batch,
            paged=True,
        )
        rows.append((f"decode, {batch} x {min(context, longest)} tokens", cost.step_s(work)))
    for new in (min(128, longest), min(1024, longest)):
        pieces = np.array([new])
        work = Work(prefill_new=pieces, prefill_past=0 * pieces, sampled=1, paged=True)
        rows.append((f"prefill, {new} tokens", cost.step_s(work)))
    lines = [("paged step", "ms"), *((name, f"{1e3 * seconds:.3g}") for name, seconds in rows)]
    return table(lines)


def errors(found: Comparison) -> str:
    """Return the errors as two tables, by kind of step and by run."""
    parts = [table([HEAD, *map(_row, found.by_kind)])]
    parts.append(table([("run", *HEAD[1:]), *map(_row, found.by_run)]))
    now = sorted(found.machine)
    if now:
        parts.append(
            f"The machine itself: its probe took {median(now):.2f} of the calibrated time between "
            f"these runs ({now[0]:.2f} to {now[-1]:.2f})"
        )
    parts.extend(f"not run: {name}: {reason}" for name, reason in found.skipped.items())
    return "\n\n".join(parts)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as Markdown with aligned columns; the first one is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def _row(error: Error) -> tuple[str, ...]:
    return (
        error.steps,
        str(error.count),
        f"{error.median_error:.1%}",
        f"{error.p90_error:.1%}",
        f"{error.total_ratio:.2f}",
    )
