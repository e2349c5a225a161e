"""One allocator for runs of several kinds: the one that is never far behind the best."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.collection import Collection, Run
from harness.report.knob_verdict import is_given
from harness.report.numbers import percent, times
from harness.report.ranking import CLOSE, listed, output
from harness.results.runlog import ResultRow

#: share of the pool from which dead memory is worth naming as a cause
_MUCH = 0.02
#: beyond so far behind the best of some run there is no common choice
_FAR = 0.1


def common_verdict(collection: Collection, runs: Sequence[Run]) -> list[str]:
    """The allocator to take whatever is served, how far it leads, and why; [] where none is near.

    For several runs that differ in what is served, by what and where, not in knobs.  Far behind is
    more than a tenth; idealised reservations are left out.
    """
    if len(runs) < 2 or not all(map(is_given, collection.headers)):
        return []
    real = [
        {row.allocator: row for row in run.ok_rows if not run.idealised(row.allocator)}
        for run in runs
    ]
    everywhere = [name for name in real[0] if all(name in rows for rows in real)]
    if len(everywhere) < 2 or any(max(map(output, rows.values())) <= 0 for rows in real):
        return []

    def kept(name: str) -> list[float]:
        """Return the share of the best run's tokens that this one serves, in each."""
        return [output(rows[name]) / max(map(output, rows.values())) for rows in real]

    best = max(everywhere, key=lambda name: min(kept(name)))
    behind = 1 - min(kept(best))
    if behind > _FAR:
        return []
    where = f"in all {len(runs)} runs"
    text = f"it serves most output tokens/s {where}, or as much as any"
    if behind > CLOSE:
        text = f"it serves at most {percent(behind)} fewer output tokens/s than the best {where}"
    others = [name for name in everywhere if name != best]
    ratios = {name: [output(rows[best]) / max(output(rows[name]), 1e-12) for rows in real]
              for name in others}  # fmt: skip
    last = max(others, key=lambda name: sum(ratios[name]))
    text += f", and {_range(ratios[last])} times those of {last}"
    return [f"Take {best}: {text}{_why(best, others, real)}."]


def _why(best: str, others: Sequence[str], real: Sequence[dict[str, ResultRow]]) -> str:
    """Return what others keep that nothing will read again, where that is much."""
    causes = []
    for name in others:
        shares = [_expired(rows[name]) for rows in real]
        if max(shares) > _MUCH and max(shares) > 2 * max(_expired(rows[best]) for rows in real):
            least, most = percent(min(shares)), percent(max(shares))
            share = most if least == most else f"{least} to {most}"
            causes.append(f"{name} keeps {share} of the pool in what nothing will read again")
    return f"; {listed(causes)}" if causes else ""


def _expired(row: ResultRow) -> float:
    return float(row.metrics.get("expired_share") or 0.0)


def _range(ratios: Sequence[float]) -> str:
    least, most = times(min(ratios)), times(max(ratios))
    return most if least == most else f"{least} to {most}"
