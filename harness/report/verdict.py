"""Which allocator, and why: sentences made from the figures.

Most output tokens a second comes first. Those within CLOSE of the most are told apart by their mean
normalized latency. Reservations that read the output length are named as what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.load import Collection, Run
from harness.report.numbers import percent, spoken, times
from harness.results.runlog import Row

#: differences below this share decide nothing
CLOSE = 0.01
#: a sweep's rate is held while normalized latency is under so many times the best unloaded one
HELD = 2.0


def verdicts(collection: Collection) -> list[str]:
    """One to three sentences, or one for each run where the runs are of different kinds.

    One more where a clock was read: what was measured once is not to be trusted to the percent.
    """
    sentences = _verdicts(collection)
    if any(run.measured for run in collection.runs):
        simulated = not all(run.measured for run in collection.runs)
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
        return _rate_verdict(runs, rate)
    numeric = [name for name in collection.headers if is_numeric(runs, name)]
    if len(collection.headers) == 1 and numeric and len(runs) > 1:
        return _knob_verdict(collection, runs, numeric[0])
    if collection.one_row_each:
        return _best_run_verdict(collection, runs)
    return [f"{run.label(collection.headers)}: {run_verdict(run)[0]}" for run in runs]


def is_rate(option: str) -> bool:
    """Whether an option is a rate of requests; sampling.acceptance_rate, say, is none."""
    return option.rsplit(".", 1)[-1] == "rate"


def is_numeric(runs: Sequence[Run], name: str) -> bool:
    """Whether an option is a number in every run, and not the same in all."""
    values = [run.options.get(name) for run in runs]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(set(values)) > 1


def run_verdict(run: Run) -> list[str]:
    """The choice for one run: what it serves, against which others, why, and what it costs."""
    rows = run.ok_rows
    if len(rows) == 1:
        return [f"{rows[0].allocator} serves {_speed(rows[0])}; nothing to compare it with."]
    ranked = _rank(rows)
    best = ranked[0]
    sentences = []
    if run.idealised(best.allocator):
        real = [row for row in ranked if not run.idealised(row.allocator)]
        if real:
            sentences.append(
                f"{best.allocator} leads with {_speed(best)}, but it is an idealised baseline that "
                "knows every output length beforehand."
            )
            best = real[0]
    others = [row for row in rows if row is not best and row.allocator != ranked[0].allocator]
    others = others or [row for row in rows if row is not best]
    close = [row for row in others if abs(_output(row) - _output(best)) <= CLOSE * _output(best)]
    choice = "Of those that can be built, take" if sentences else "Take"
    if len(close) == len(others):
        sentences.insert(0, f"{choice} {best.allocator}: {_keeps_up(best, others)}")
    else:
        sentences.insert(0, f"{choice} {best.allocator}: {_serves_most(best, others)}")
    if len(sentences) == 2:
        sentences.reverse()
    return sentences + _reservations(best, rows)


def _serves_most(best: Row, others: Sequence[Row]) -> str:
    ranked = _rank(others)
    next_best, last = ranked[0], ranked[-1]
    ratio = _output(best) / max(_output(next_best), 1e-12)
    lead = f"{_speed(best)}, {times(ratio)} times {next_best.allocator}"
    if abs(ratio - 1) <= CLOSE:
        lead = f"{_speed(best)}, as much as {next_best.allocator} and at lower latency"
    if last is not next_best:
        lead += f" and {times(_output(best) / max(_output(last), 1e-12))} times {last.allocator}"
    return f"{lead}, {_because(best, last)}."


def _because(best: Row, last: Row) -> str:
    batch = (best.metrics.get("mean_batch") or 0.0, last.metrics.get("mean_batch") or 0.0)
    causes = []
    if batch[0] > 1.05 * batch[1]:
        causes.append(
            f"since it runs {spoken(batch[0])} requests at once where {last.allocator} runs "
            f"{spoken(batch[1])}"
        )
    mine, theirs = _live(best), _live(last)
    if mine is not None and theirs is not None and mine > theirs + 0.02:
        causes.append(
            f"{percent(mine)} of the memory that is not idle holds live KV, against "
            f"{percent(theirs)}"
        )
    saved = best.metrics.get("sharing_saved") or 0.0
    if saved > 0.02:
        causes.append(f"sharing saves {percent(saved)} of its blocks")
    if not causes:
        return "which the figures below break down"
    return causes[0] + "".join(f"; {cause}" for cause in causes[1:])


def _keeps_up(best: Row, others: Sequence[Row]) -> str:
    worst = max(others, key=_latency)
    ratio = _latency(worst) / max(_latency(best), 1e-12)
    head = f"all serve about {_speed(best)}, so latency decides"
    if ratio - 1 <= CLOSE:
        return f"all serve about {_speed(best)} and none is faster; any will do at this load."
    return (
        f"{head}; its {spoken(1000 * _latency(best))} ms per output token is lowest, "
        f"{worst.allocator} needs {times(ratio)} times as long."
    )


def _reservations(best: Row, rows: Sequence[Row]) -> list[str]:
    """What speaks against the choice: a faster first token elsewhere, preemptions."""
    notes = []
    waits = [row for row in rows if (row.metrics.get("ttft_p50_s") is not None)]
    mine = best.metrics.get("ttft_p50_s")
    if mine is not None and waits:
        quickest = min(waits, key=lambda row: row.metrics["ttft_p50_s"])
        if mine > 1.05 * quickest.metrics["ttft_p50_s"]:
            notes.append(
                f"the median first token comes sooner with {quickest.allocator} "
                f"({spoken(quickest.metrics['ttft_p50_s'])} s against {spoken(mine)} s)"
            )
    preempted = best.metrics.get("preemptions") or 0
    finished = best.metrics.get("finished_requests") or 0
    if preempted and finished and preempted > 0.05 * finished:
        plural = "s" if preempted != 1 else ""
        notes.append(f"it preempts {preempted:,} time{plural} for {finished:,} requests")
    return [f"Against it: {'; '.join(notes)}."] if notes else []


def _rate_verdict(runs: Sequence[Run], rate: str) -> list[str]:
    runs = sorted(
        (run for run in runs if isinstance(run.options.get(rate), int | float)),
        key=lambda run: run.options[rate],
    )
    if not runs:
        return []
    limit = HELD * min(_latency(row) for row in runs[0].ok_rows)
    held: dict[str, float] = {}
    for name in dict.fromkeys(row.allocator for run in runs for row in run.ok_rows):
        for run in runs:
            row = next((row for row in run.ok_rows if row.allocator == name), None)
            if row is None or _latency(row) > limit:
                break
            held[name] = run.options[rate]
    top = max(held.values(), default=None)
    last = runs[-1]
    sentences = []
    if top is not None:
        best = [name for name, reached in held.items() if reached == top]
        rest = [f"{name} {spoken(reached)}" for name, reached in held.items() if reached != top]
        never = [row.allocator for row in runs[0].ok_rows if row.allocator not in held]
        rest += [f"{name} no rate tried" for name in never]
        sentences.append(
            f"{_listed(best)} hold{'s' * (len(best) == 1)} normalized latency under "
            f"{spoken(1000 * limit)} ms/token (twice the best at the lowest rate) up to "
            f"{spoken(top)} requests/s{'; ' + ', '.join(rest) if rest else ''}."
        )
    sentences.append(f"At {spoken(last.options[rate])} requests/s: {run_verdict(last)[0]}")
    return sentences


def _knob_verdict(collection: Collection, runs: Sequence[Run], option: str) -> list[str]:
    title = collection.headers[option]
    sentences = []
    for name in dict.fromkeys(row.allocator for run in runs for row in run.ok_rows):
        points = [
            (run.options[option], row)
            for run in runs
            for row in run.ok_rows
            if row.allocator == name
        ]
        best_at, best = max(points, key=lambda point: _output(point[1]))
        worst_at, worst = min(points, key=lambda point: _output(point[1]))
        loss = 1 - _output(worst) / max(_output(best), 1e-12)
        if loss <= CLOSE:
            sentences.append(f"{name}: {title} makes no difference above {percent(CLOSE)}.")
            continue
        near = [str(at) for at, row in points if _output(row) >= (1 - 2 * CLOSE) * _output(best)]
        text = f"Take {name} with {title} {best_at}: {_speed(best)}"
        others = [at for at in near if at != str(best_at)]
        if others:
            text += f" ({_listed(others)} within {200 * CLOSE:g} %)"
        sentences.append(f"{text}; {title} {worst_at} costs {percent(loss)}.")
    return sentences


def _best_run_verdict(collection: Collection, runs: Sequence[Run]) -> list[str]:
    best = max(runs, key=lambda run: _output(run.ok_rows[0]))
    row = best.ok_rows[0]
    return [f"{row.allocator} with {best.label(collection.headers)} serves most: {_speed(row)}."]


def _rank(rows: Sequence[Row]) -> list[Row]:
    """Best first; those within CLOSE of the leader by latency."""
    ordered = sorted(rows, key=_output, reverse=True)
    top = _output(ordered[0])
    near = [row for row in ordered if _output(row) >= (1 - CLOSE) * top]
    return sorted(near, key=_latency) + ordered[len(near) :]


def _output(row: Row) -> float:
    return float(row.metrics.get("output_tokens_per_s") or 0.0)


def _latency(row: Row) -> float:
    value = row.metrics.get("normalized_latency_mean_s")
    return float("inf") if value is None else float(value)


def _speed(row: Row) -> str:
    return f"{spoken(_output(row))} output tokens/s"


def _live(row: Row) -> float | None:
    """Live KV as a share of the memory that is neither idle nor cached for reuse."""
    shares = [row.metrics.get(f"{c}_share") for c in ("token", "reserved", "internal", "external")]
    if any(share is None for share in shares) or not sum(shares):
        return None
    return shares[0] / sum(shares)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
