"""Which allocator for one run, and why: sentences made from the figures.

Reservations that read the output length are named as what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.collection import Run
from harness.report.numbers import percent, spoken, times
from harness.report.ranking import CLOSE, latency, listed, output, rank, speed
from harness.report.table_price import of_tables
from harness.results.limits import main_limit
from harness.results.runlog import PARTS, ResultRow

#: shares of the run below which a cause, or a part, is not worth a sentence
_HELD_BACK, _LARGE_PART = 0.1, 0.15
_PART_WORDS = {"linear": "linear layers", "all_reduce": "all-reduce"}
_LEVEL = "serve as much"

_IDEALISED = "but it is an idealised baseline that knows every output length beforehand."


def choice(run: Run) -> str:
    """The choice for one run alone; where an idealised one leads, what to take in its place too."""
    said = run_verdict(run)
    return " ".join(said[: 2 if said[0].endswith(_IDEALISED) else 1])


def where_taken(run: Run, taken: str) -> str:
    """How the allocator that is taken for all runs does where another one is best; "" elsewhere."""
    best = rank([row for row in run.ok_rows if not run.idealised(row.allocator)] or run.ok_rows)[0]
    row = next((row for row in run.ok_rows if row.allocator == taken), best)
    if row is best:
        return ""
    behind, longer = 1 - output(row) / output(best), latency(row) / max(latency(best), 1e-12)
    much = "as much" if behind <= CLOSE else f"{percent(behind)} less"
    slower = f", at {times(longer)} times the latency" if longer > 1 + CLOSE else ""
    return f" {taken} serves {much}{slower}."


def run_verdict(run: Run) -> list[str]:
    """The choice for one run: what it serves, against which others, why, and what it costs."""
    rows = run.ok_rows
    titled = [(run.title(row.allocator), row) for row in rows]
    if len(rows) == 1:
        alone = f"{rows[0].allocator} serves {speed(rows[0])}; nothing to compare it with."
        return [alone, *good_within(run, rows), *held_back(run, rows[0]), *prefix_hits(titled)]
    ranked = rank(rows)
    best = ranked[0]
    sentences = []
    if run.idealised(best.allocator):
        real = [row for row in ranked if not run.idealised(row.allocator)]
        if real:
            price = of_tables(run, best, _leads(best, real[:1]), _LEVEL)
            aside = f" ({price})" if price else ""
            sentences.append(f"{best.allocator} leads with {speed(best)}{aside}, {_IDEALISED}")
            best = real[0]
    others = [row for row in rows if row is not best and row.allocator != ranked[0].allocator]
    others = others or [row for row in rows if row is not best]
    close = [row for row in others if abs(output(row) - output(best)) <= CLOSE * output(best)]
    choice = "Of those that can be built, take" if sentences else "Take"
    if len(close) == len(others):
        sentences.insert(0, f"{choice} {best.allocator}: {_keeps_up(run, best, others)}")
    else:
        sentences.insert(0, f"{choice} {best.allocator}: {_serves_most(run, best, others)}")
    if len(sentences) == 2:
        sentences.reverse()
    against = _reservations(run, best, rows)
    return sentences + good_within(run, rows) + held_back(run, best) + against + prefix_hits(titled)


def held_back(run: Run, row: ResultRow) -> list[str]:
    """What held a row back for longest, and where its time went; none where nothing says."""
    limit = main_limit(row.metrics)
    if limit is None:
        return []
    cause, share = limit
    name, time = row.allocator, percent(share)
    engine = run.config.get("engine")
    settings = engine if isinstance(engine, dict) else {}
    if cause == "nobody":
        text = f"Nobody waits for {name} in {time} of its time"
    elif share < _HELD_BACK:
        return []
    elif cause == "policy":
        text = f"engine=static keeps others out of {name} in {time} of its time"
    else:
        option = {"sequences": "max_num_seqs", "tokens": "max_num_batched_tokens"}.get(cause)
        by = f"engine.{option}" if option else cause
        if option and settings.get(option) is not None:
            by += f"={settings[option]}"
        text = f"{name} is held back by {by} in {time} of its time"
    shares = {part: row.metrics.get(f"time_{part}_share") or 0.0 for part in PARTS}
    large = sorted((p for p in PARTS if shares[p] >= _LARGE_PART), key=lambda p: -shares[p])
    if not large:
        return [f"{text}."]
    parts = listed([f"{_PART_WORDS.get(part, part)} ({percent(shares[part])})" for part in large])
    return [f"{text}; its time goes to {parts}."]


def _serves_most(run: Run, best: ResultRow, others: Sequence[ResultRow]) -> str:
    ranked = rank(others)
    next_best, last = ranked[0], ranked[-1]
    ratio = output(best) / max(output(next_best), 1e-12)
    lead = f"{speed(best)}, {times(ratio)} times {next_best.allocator}"
    if abs(ratio - 1) <= CLOSE:
        faster = latency(next_best) > (1 + CLOSE) * latency(best)
        lead = f"{speed(best)}, as much as {next_best.allocator}"
        lead += " and at lower latency" if faster else ""
    if last is not next_best:
        lead += f" and {times(output(best) / max(output(last), 1e-12))} times {last.allocator}"
    price = of_tables(run, best, _leads(best, ranked), _LEVEL)
    return f"{lead}, {_because(best, last)}{f'; {price}' if price else ''}."


def _leads(best: ResultRow, others: Sequence[ResultRow]) -> list[tuple[ResultRow, float]]:
    return [(row, output(best) / max(output(row), 1e-12)) for row in others]


def _because(best: ResultRow, last: ResultRow) -> str:
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
    dead = last.metrics.get("expired_share") or 0.0
    if dead > 0.02 + 2 * (best.metrics.get("expired_share") or 0.0):
        causes.append(f"{last.allocator} keeps {percent(dead)} in what nothing will read again")
    saved = best.metrics.get("sharing_saved") or 0.0
    if saved > 0.02:
        causes.append(f"sharing saves {percent(saved)} of its blocks")
    if not causes:
        return "which the figures below break down"
    return causes[0] + "".join(f"; {cause}" for cause in causes[1:])


def _keeps_up(run: Run, best: ResultRow, others: Sequence[ResultRow]) -> str:
    worst = max(others, key=latency)
    ratio = latency(worst) / max(latency(best), 1e-12)
    head = f"all serve about {speed(best)}, so latency decides"
    if ratio - 1 <= CLOSE:
        return f"all serve about {speed(best)} and none is faster; any will do at this load."
    price = of_tables(run, best, [(worst, ratio)], "be as fast")
    return (
        f"{head}; its {spoken(1000 * latency(best))} ms per output token is lowest, "
        f"{worst.allocator} needs {times(ratio)} times as long{f'; {price}' if price else ''}."
    )


def good_within(run: Run, rows: Sequence[ResultRow]) -> list[str]:
    """How many requests each row serves within the limits of `slo`; none where there are none."""
    slo = run.config.get("slo")
    given = slo.items() if isinstance(slo, dict) else ()
    limits = [f"slo.{name}={limit:g}" for name, limit in given if isinstance(limit, int | float)]
    counted = [row for row in rows if row.metrics.get("good_share") is not None]
    if not limits or not counted:
        return []
    each = [
        f"{row.allocator} {spoken(_goodput(row))} ({percent(row.metrics['good_share'])} of all)"
        for row in sorted(counted, key=_goodput, reverse=True)
    ]
    return [f"Requests/s within {listed(limits)}: {', '.join(each)}."]


def _goodput(row: ResultRow) -> float:
    return float(row.metrics.get("goodput_requests_per_s") or 0.0)


def _reservations(run: Run, best: ResultRow, rows: Sequence[ResultRow]) -> list[str]:
    """What speaks against the choice: goodput or a faster first token elsewhere, preemptions."""
    notes = []
    real = [row for row in rows if not run.idealised(row.allocator)]
    better = max(real, key=_goodput, default=best)
    if _goodput(better) > (1 + CLOSE) * _goodput(best):
        notes.append(f"{better.allocator} serves more requests within the limits")
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


def prefix_hits(titled: Sequence[tuple[str, ResultRow]]) -> list[str]:
    """The hit rate of every prefix cache, in one sentence, if there is any."""
    rates = [
        f"{title} {percent(row.metrics['prefix_hit_rate'])}"
        for title, row in titled
        if row.metrics.get("prefix_hit_rate") is not None
    ]
    return [f"Tokens found in the prefix cache: {', '.join(rates)}."] if rates else []


def _live(row: ResultRow) -> float | None:
    """Live KV as a share of the memory that is neither idle nor cached for reuse."""
    shares = [row.metrics.get(f"{c}_share") for c in ("token", "reserved", "internal", "external")]
    if any(share is None for share in shares) or not sum(shares):
        return None
    return shares[0] / (sum(shares) + (row.metrics.get("expired_share") or 0.0))
