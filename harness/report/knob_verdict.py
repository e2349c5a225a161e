"""What a sweep of knobs says as a whole: the best setting, and what each knob is worth at it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.collection import Collection, Run
from harness.report.numbers import percent
from harness.report.ranking import CLOSE, listed, output, rank, speed
from harness.results.runlog import ResultRow

#: options that say what is served, by what and where: nothing that a user turns to serve it better
_GIVEN = (
    "workload",
    "sampling",
    "model",
    "hardware",
    "executor",
    "cost_model",
    "software",
    "memory",
    "seed",
    "slo",
)


def is_rate(option: str) -> bool:
    """Whether an option is a rate of requests; sampling.acceptance_rate, say, is none."""
    return option.rsplit(".", 1)[-1] == "rate"


def is_numeric(runs: Sequence[Run], name: str) -> bool:
    """Whether an option is a number in every run, and not the same in all."""
    values = [run.options.get(name) for run in runs]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 1


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
    if len(headers) < 2 or any(is_given(name) for name in headers):
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


def is_given(option: str) -> bool:
    """Whether an option says what is served, by what and where."""
    return option.partition(".")[0].lstrip("+") in _GIVEN or option == "run"


def _same_but(run: Run, other: Run, option: str) -> bool:
    return all(
        value == other.options[name] for name, value in run.options.items() if name != option
    )


def _loss(best: ResultRow, rows: Sequence[ResultRow]) -> float:
    return 1 - min(map(output, rows)) / max(output(best), 1e-12)


def best_run_verdict(collection: Collection, runs: Sequence[Run]) -> list[str]:
    """The run that serves most, where each has one allocator; that there is none, where all do."""
    best = max(runs, key=lambda run: output(run.ok_rows[0]))
    row = best.ok_rows[0]
    if len(runs) > 1 and _loss(row, [run.ok_rows[0] for run in runs]) <= CLOSE:
        return [f"All serve about {speed(row)}."]
    return [f"{row.allocator} with {best.label(collection.headers)} serves most: {speed(row)}."]
