"""Which allocator, and why: sentences made from the figures.

Most output tokens a second comes first. Those within CLOSE of the most are told apart by their mean
normalized latency. A sweep is answered as a whole, what limits the answer stands in `caveats`.
"""

from __future__ import annotations

from harness.report.collection import Collection
from harness.report.common_verdict import common_verdict
from harness.report.knob_verdict import (
    best_run_verdict,
    is_numeric,
    is_rate,
    knob_verdict,
    knobs_verdict,
)
from harness.report.rate_verdict import rate_verdict
from harness.report.run_verdict import choice, good_within, prefix_hits, run_verdict, where_taken

#: hit rates of more runs than that are left to the table
_MOST_HITS = 6


def verdicts(collection: Collection) -> list[str]:
    """One to three sentences, or one for each run where the runs are of different kinds.

    One more where a clock was read: what was measured once is not to be trusted to the percent.
    """
    sentences = _verdicts(collection)
    measured = [run.measured for run in collection.runs if run.ok_rows]
    if any(measured):
        simulated = not all(measured)
        sentences.append(
            ("Some of these runs are measured, others simulated. " if simulated else "")
            + "Times were measured once, on a machine that may have had other work: take "
            "differences below a quarter for noise until repeats confirm them."
        )
    return sentences


def _verdicts(collection: Collection) -> list[str]:
    runs = [run for run in collection.runs if run.ok_rows]
    if not runs:
        reasons = {f"{row.allocator}: {row.reason}" for run in collection.runs for row in run.rows}
        if any("interrupted" in (row.reason or "") for run in collection.runs for row in run.rows):
            return ["The run was interrupted before any allocator had ended."]
        return ["No allocator could serve this workload.", *sorted(reasons)[:3]]
    if collection.single:
        return run_verdict(runs[0])
    rate = next((name for name in collection.headers if is_rate(name)), None)
    if rate and len(collection.headers) == 1:
        return rate_verdict(runs, rate)
    if len(runs) > 1 and all(name.startswith("slo.") for name in collection.headers):
        within = [text for run in runs for text in good_within(run, run.ok_rows)]
        return [f"The limits change no run, but who keeps them. {run_verdict(runs[0])[0]}", *within]
    numeric = [name for name in collection.headers if is_numeric(runs, name)]
    if len(collection.headers) == 1 and numeric and len(runs) > 1:
        return knob_verdict(collection, runs, numeric[0])
    if collection.one_row_each:
        best = knobs_verdict(collection, runs) or best_run_verdict(collection, runs)
        titled = [(run.label(collection.headers), run.ok_rows[0]) for run in runs]
        return best + prefix_hits(titled if len(titled) <= _MOST_HITS else [])
    taken, common = common_verdict(collection, runs)
    each = [
        f"{run.label(collection.headers)}: {choice(run)}{where_taken(run, taken)}" for run in runs
    ]
    return knobs_verdict(collection, runs) + common + each
