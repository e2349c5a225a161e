"""One allocator for runs of several kinds: the one that is never far behind the best."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.collection import Collection, Run
from harness.report.knob_verdict import is_given
from harness.report.numbers import percent, times
from harness.report.ranking import CLOSE, listed, output
from harness.report.table_price import is_of_tables
from harness.results.runlog import ResultRow

#: where memory is lost, in words, and the share of the pool from which that is worth naming
LOSSES = {
    "expired": "what nothing reads again",
    "internal": "slots that are never used",
    "reserved": "reserved for later",
    "external": "too scattered to use",
}
_MUCH = 0.02
#: beyond so far behind the best of some run there is no common choice
_FAR = 0.1


def common_verdict(collection: Collection, runs: Sequence[Run]) -> tuple[str, list[str]]:
    """The allocator to take whatever is served, and how far it leads and why; "", [] if none is.

    For several runs that differ in what is served, by what and where, not in knobs.  Far behind is
    more than a tenth; idealised reservations are left out.
    """
    if len(runs) < 2 or not all(map(is_given, collection.headers)):
        return "", []
    real = [
        {row.allocator: row for row in run.ok_rows if not run.idealised(row.allocator)}
        for run in runs
    ]
    everywhere = [name for name in real[0] if all(name in rows for rows in real)]
    if len(everywhere) < 2 or any(max(map(output, rows.values())) <= 0 for rows in real):
        return "", []

    def kept(name: str) -> list[float]:
        """Return the share of the best run's tokens that this one serves, in each."""
        return [output(rows[name]) / max(map(output, rows.values())) for rows in real]

    best = max(everywhere, key=lambda name: min(kept(name)))
    behind = 1 - min(kept(best))
    if behind > _FAR:
        return "", []
    where = f"in all {len(runs)} runs"
    text = f"it serves most output tokens/s {where}, or as much as any"
    if behind > CLOSE:
        text = f"it serves at most {percent(behind)} fewer output tokens/s than the best {where}"
    ratios = {
        name: [output(rows[best]) / max(output(rows[name]), 1e-12) for rows in real]
        for name in everywhere
        if name != best
    }
    ranked = sorted(ratios, key=lambda name: sum(ratios[name]))
    against = [
        f"{_range(ratios[name])} times those of {name}"
        f"{_tables(name, best, runs, real, ratios[name]) or _loss(name, best, real)}"
        for name in dict.fromkeys([ranked[0], ranked[-1]])
    ]
    some = {row.allocator for run in runs for row in run.rows} - set(everywhere)
    out = sorted(name for name in some if not any(run.idealised(name) for run in runs))
    fails = f" Not in every run: {listed(out)}." if out else ""
    return best, [f"Take {best}: {text}; {', and '.join(against)}.{fails}"]


def _tables(
    name: str,
    best: str,
    runs: Sequence[Run],
    real: Sequence[dict[str, ResultRow]],
    ratios: Sequence[float],
) -> str:
    """Return that the best one leads this one by the price of block tables alone, if it does."""
    leads = [each for each in zip(runs, real, ratios, strict=True) if each[2] > 1 + CLOSE]
    if leads and all(
        is_of_tables(run, rows[best], rows[name], ratio) for run, rows, ratio in leads
    ):
        return " (by no more than what the software charges for block tables)"
    return ""


def _loss(name: str, best: str, real: Sequence[dict[str, ResultRow]]) -> str:
    """Return what this one loses most of the pool to, beyond the best one; "" where little."""
    lost = {
        category: max(_share(rows[name], category) - _share(rows[best], category) for rows in real)
        for category in LOSSES
    }
    worst = max(lost, key=lambda category: lost[category])
    if lost[worst] <= _MUCH:
        return ""
    return f" (up to {percent(lost[worst])} more of its pool is {LOSSES[worst]})"


def _share(row: ResultRow, category: str) -> float:
    return float(row.metrics.get(f"{category}_share") or 0.0)


def _range(ratios: Sequence[float]) -> str:
    least, most = times(min(ratios)), times(max(ratios))
    return most if least == most else f"{least} to {most}"
