"""Up to which rate of requests each allocator holds its latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.collection import Run
from harness.report.numbers import spoken
from harness.report.ranking import latency, listed
from harness.report.run_verdict import run_verdict
from harness.results.runlog import ResultRow


@dataclass(frozen=True)
class _Limit:
    """A latency that may be at most `times` the best one at the lowest rate.

    Means hide what a few requests go through, so the tails are held too. Their factor is that of
    the strict objective of Sarathi-Serve (OSDI 2024).
    """

    name: str
    unit: str
    value: Callable[[ResultRow], float | None]
    times: float


_LIMITS = (
    _Limit(
        "normalized latency",
        "ms/token",
        lambda row: 1000 * latency(row),
        2.0,
    ),
    _Limit("TTFT p99", "s", lambda row: row.metrics.get("ttft_p99_s"), 5.0),
    _Limit("TPOT p99", "s", lambda row: row.metrics.get("tpot_p99_s"), 5.0),
    _Limit("ITL p99", "s", lambda row: row.metrics.get("itl_p99_s"), 5.0),
)


def rate_verdict(runs: Sequence[Run], rate: str) -> list[str]:
    """Up to which rate each allocator holds its latencies, tails too; the choice at the highest."""
    runs = sorted(
        (run for run in runs if isinstance(run.options.get(rate), int | float)),
        key=lambda run: run.options[rate],
    )
    if not runs:
        return []
    at_most = _most_allowed(runs[0])
    rates = [run.options[rate] for run in runs]
    held: dict[str, float] = {}
    names = list(dict.fromkeys(row.allocator for run in runs for row in run.ok_rows))
    for name in names:
        for run in runs:
            row = next((row for row in run.ok_rows if row.allocator == name), None)
            if row is None or not _within(row, at_most):
                break
            held[name] = run.options[rate]
    at_highest = f"At {spoken(rates[-1])} requests/s: {run_verdict(runs[-1])[0]}"
    if not held:
        return [at_highest]
    top = max(held.values())
    best = [name for name in names if held.get(name) == top]
    rest = [f"{name} {spoken(held[name])}" for name in names if held.get(name, top) != top]
    rest += [f"{name} at no rate tried" for name in names if name not in held]
    limits = [f"{limit.name} under {spoken(at_most[limit])} {limit.unit}" for limit in at_most]
    factors = listed([f"{limit.times:g}" for limit in at_most])
    sentences = [
        f"{listed(best)} hold{'s' * (len(best) == 1)} {listed(limits)} ({factors} times the best "
        f"at {spoken(rates[0])} requests/s) up to {spoken(top)} requests/s"
        f"{'; ' + ', '.join(rest) if rest else ''}. {_grid(rates, top)}"
    ]
    there = next(run for run in runs if run.options[rate] == top)
    tails = [
        f"{spoken(row.metrics['ttft_p99_s'])} s with {row.allocator}"
        for row in there.ok_rows
        if row.allocator in best and row.metrics.get("ttft_p99_s") is not None
    ]
    if len(tails) > 1:
        sentences.append(f"At {spoken(top)} requests/s TTFT p99 is {listed(tails)}.")
    return [*sentences, at_highest]


def _most_allowed(lowest: Run) -> dict[_Limit, float]:
    """What each latency may be at most; those that no row of the lowest rate has are left out."""
    allowed = {}
    for limit in _LIMITS:
        values = [value for row in lowest.ok_rows if (value := limit.value(row)) is not None]
        if values:
            allowed[limit] = limit.times * min(values)
    return allowed


def _within(row: ResultRow, at_most: dict[_Limit, float]) -> bool:
    values = {limit: limit.value(row) for limit in at_most}
    return all(value is None or value <= at_most[limit] for limit, value in values.items())


def _grid(rates: Sequence[float], top: float) -> str:
    """How the rates that were tried limit the answer."""
    above = [rate for rate in rates if rate > top]
    if not above:
        return f"No higher rate was tried: {spoken(top)} is a lower bound."
    return f"The next rate tried is {spoken(above[0])}: what holds in between is not known."
