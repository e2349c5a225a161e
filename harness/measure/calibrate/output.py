"""What the command prints: a summary of what was measured, and the errors."""

from __future__ import annotations

import numpy as np

from harness.command.tables import markdown_table
from harness.cost.calibrated import Calibrated
from harness.cost.calibration import Calibration
from harness.cost.roofline import Work
from harness.cost.shapes import ModelShape
from harness.measure.calibrate.accuracy import Accuracy, StepErrors

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
    return markdown_table(("paged step", "ms"), [(name, f"{1e3 * s:.3g}") for name, s in rows])


def errors(found: Accuracy) -> str:
    """Return the errors as two tables, by kind of step and by run."""
    parts = [
        markdown_table(HEAD, map(_row, found.by_kind)),
        markdown_table(("run", *HEAD[1:]), map(_row, found.by_run)),
    ]
    now = sorted(found.machine)
    if now:
        parts.append(
            f"The machine itself: its probe took {np.median(now):.2f} of the calibrated time "
            f"between these runs ({now[0]:.2f} to {now[-1]:.2f})"
        )
    parts.extend(f"not run: {name}: {reason}" for name, reason in found.skipped.items())
    return "\n\n".join(parts)


def _row(error: StepErrors) -> tuple[str, ...]:
    return (
        error.steps,
        str(error.count),
        f"{error.median_error:.1%}",
        f"{error.p90_error:.1%}",
        f"{error.total_ratio:.2f}",
    )
