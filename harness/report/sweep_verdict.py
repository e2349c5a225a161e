"""What a sweep says as a whole: how far each allocator holds, and what each knob is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.load import Collection, Run
from harness.report.numbers import percent, spoken
from harness.report.ranking import CLOSE, latency, listed, output, rank, speed
from harness.report.run_verdict import run_verdict
from harness.results.runlog import Row

#: options that say what is served, by what and where: nothing that a user turns to serve it better
_GIVEN = ("workload", "sampling", "model", "hardware", "executor", "cost_model", "memory", "seed")


@dataclass(frozen=True)
class _Limit:
    """A latency that may be at most `times` the best one at the lowest rate.

    Means hide what a few requests go through, so the tails are held too. Their factor is that of
    the strict objective of Sarathi-Serve (OSDI 2024).
    """

    name: str
    unit: str
    value: Callable[[Row], float | None]
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
)


def is_rate(option: str) -> bool:
    """Whether an option is a rate of requests; sampling.acceptance_rate, say, is none."""
    return option.rsplit(".", 1)[-1] == "rate"


def is_numeric(runs: Sequence[Run], name: str) -> bool:
    """Whether an option is a number in every run, and not the same in all."""
    values = [run.options.get(name) for run in runs]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 1


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
    rest += [f"{name} no rate tried" for name in names if name not in held]
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


def _within(row: Row, at_most: dict[_Limit, float]) -> bool:
    values = {limit: limit.value(row) for limit in at_most}
    return all(value is None or value <= at_most[limit] for limit, value in values.items())


def _grid(rates: Sequence[float], top: float) -> str:
    """How the rates that were tried limit the answer."""
    above = [rate for rate in rates if rate > top]
    if not above:
        return f"No higher rate was tried: {spoken(top)} is a lower bound."
    return f"The next rate tried is {spoken(above[0])}: what holds in between is not known."


def knob_verdict(collection: Collection, runs: Sequence[Run], option: str) -> list[str]:
    """For each allocator its best setting of one option, and what the worst costs."""
    title = collection.headers[option]
    sentences = []
    for name in dict.fromkeys(row.allocator for run in runs for row in run.ok_rows):
        points = [
            (run.options[option], row)
            for run in runs
            for row in run.ok_rows
            if row.allocator == name
        ]
        best_at, best = max(points, key=lambda point: output(point[1]))
        worst_at, worst = min(points, key=lambda point: output(point[1]))
        loss = 1 - output(worst) / max(output(best), 1e-12)
        if loss <= CLOSE:
            sentences.append(f"{name}: {title} makes no difference above {percent(CLOSE)}.")
            continue
        near = [str(at) for at, row in points if output(row) >= (1 - 2 * CLOSE) * output(best)]
        text = f"Take {name} with {title} {best_at}: {speed(best)}"
        others = [at for at in near if at != str(best_at)]
        if others:
            text += f" ({listed(others)} within {200 * CLOSE:g} %)"
        sentences.append(f"{text}; {title} {worst_at} costs {percent(loss)}.")
    return sentences


def knobs_verdict(collection: Collection, runs: Sequence[Run]) -> list[str]:
    """The best setting of several knobs, and what each is worth at it; [] where not all are knobs.

    A knob's worth is what its worst value costs while all others stay at their best.
    """
    headers = collection.headers
    if len(headers) < 2 or any(_is_given(name) for name in headers):
        return []
    settings = [
        (run, row) for run in runs for row in run.ok_rows if not run.idealised(row.allocator)
    ]
    if not settings:
        return []
    best = rank([row for _, row in settings])[0]
    at = next(run for run, row in settings if row is best)
    worth, noise = {}, []
    for option, title in headers.items():
        loss = _loss(
            best,
            [
                row
                for run, row in settings
                if row.allocator == best.allocator and _same_but(run, at, option)
            ],
        )
        if loss > CLOSE:
            worth[title] = loss
        else:
            noise.append(title)
    rivals = [row for run, row in settings if run is at]
    if len(rivals) > 1:
        worth["the choice of the allocator"] = _loss(best, rivals)
    parts = [
        f"{title} {percent(loss)}" for title, loss in sorted(worth.items(), key=lambda w: -w[1])
    ]
    sentence = f"Take {best.allocator} with {at.label(headers)}: {speed(best)}, the best of "
    sentence += f"{len(settings)} settings."
    if parts:
        sentence += f" At it, the worst other value costs: {', '.join(parts)}."
    if noise:
        sentence += f" Within noise ({percent(CLOSE)}): {listed(noise)}."
    return [sentence]


def _is_given(option: str) -> bool:
    return option.partition(".")[0].lstrip("+") in _GIVEN or option == "run"


def _same_but(run: Run, other: Run, option: str) -> bool:
    return all(
        value == other.options[name] for name, value in run.options.items() if name != option
    )


def _loss(best: Row, rows: Sequence[Row]) -> float:
    return 1 - min(map(output, rows)) / max(output(best), 1e-12)


def best_run_verdict(collection: Collection, runs: Sequence[Run]) -> list[str]:
    """The run that serves most, where each has one allocator."""
    best = max(runs, key=lambda run: output(run.ok_rows[0]))
    row = best.ok_rows[0]
    return [f"{row.allocator} with {best.label(collection.headers)} serves most: {speed(row)}."]
