"""What the command prints and writes: a table, `capacity.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.capacity.answer import Interval, Row, ratio
from harness.capacity.options import Asked
from harness.capacity.slo import GOOD_SHARE
from harness.command.tables import text_table
from harness.report.numbers import number
from harness.results import describe_environment
from harness.results.metrics import BY_NAME
from harness.results.writer import plain

SCHEMA_VERSION = 1
#: latencies that stand in the table where no limit names any
SHOWN = ("ttft_p99_s", "tpot_p99_s", "normalized_latency_mean_s")
MARK = "†"
IDEALISED = "idealised: it reads how long each answer becomes, which no server knows beforehand"


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, its unit, a text a row."""

    title: str
    unit: str
    texts: list[str]


def columns(rows: Sequence[Row], asked: Asked) -> list[Column]:
    """Return the columns behind the name."""
    price = asked.options.price_per_gpu_hour
    found = [
        Column("rate", "/s", [_mean(row.rate) for row in rows]),
        Column("95 %", "/s", [_ends(row.rate) for row in rows]),
        Column("of best", "", [_ratio(row.of_best) for row in rows]),
    ]
    shown = [("output_tokens_per_s", "out tok/s"), ("total_tokens_per_s", "tok/s")]
    variants = [row.capacity.variant for row in rows]
    if any(each.gpus > 1 or each.what != "requests" for each in variants):
        shown.insert(0, ("requests_per_s", "req/s"))
    for metric, title in shown:
        found.append(Column(title, "a GPU", [_text(row.per_gpu(metric)) for row in rows]))
    for metric in asked.limits.metrics or SHOWN:
        title, scale, unit = _metric_head(metric)
        texts = [_text(row.metrics.get(metric), scale) for row in rows]
        found.append(Column(title, unit, texts))
    if price is not None:
        for metric, title in (("output_tokens_per_s", "1M out"), ("total_tokens_per_s", "1M tok")):
            found.append(Column(title, "price", [_text(row.price(metric, price)) for row in rows]))
    found.append(Column("limited by,", "% of the time", [_limited(row) for row in rows]))
    found.append(Column("held", "back by", [row.capacity.held_back_by for row in rows]))
    return found


def table(rows: Sequence[Row], asked: Asked) -> str:
    """Return the table as a terminal shows it, with a line a variant that has no rate."""
    held = [row for row in rows if row.rate is not None]
    shown = columns(held, asked)
    lines = [[name(row), *(c.texts[i] for c in shown)] for i, row in enumerate(held)]
    heads = ["", *(f"{c.title}\n{c.unit}" for c in shown)]
    text = text_table(heads, lines, "l" + "r" * (len(shown) - 2) + "ll")
    notes = [f"{row.label}: {row.capacity.reason}" for row in rows if row.rate is None]
    return "\n".join([text, *legend(held), *notes])


def name(row: Row) -> str:
    """Return how a row is called in tables: marked where it is idealised."""
    return f"{row.label}{MARK * row.idealised}"


def legend(rows: Sequence[Row]) -> list[str]:
    """Return what the mark means, if any row has it."""
    return [f"{MARK} {IDEALISED}" for row in rows if row.idealised][:1]


def headline(rows: Sequence[Row], asked: Asked) -> str:
    """Return what was asked and how it was run, in a line."""
    limits = ", ".join(asked.limits.texts()) or "no limit but a queue that does not grow"
    sizes = sorted({row.capacity.requests for row in rows if row.capacity.requests})
    requests = " or ".join(f"{size:,}" for size in sizes) or f"{asked.options.duration:g} s of"
    seeds = max((len(row.capacity.held) for row in rows), default=0)
    many = f"{seeds} seeds" if seeds > 1 else "one sample"
    return (
        f"{limits}; {requests} requests a run, {many}, rates {100 * asked.options.tolerance:g} % "
        "apart"
    )


def best_sentence(rows: Sequence[Row]) -> str:
    """Say which variant sustains most, over which others, and how sure that is."""
    held = sorted((r for r in rows if r.rate is not None), key=lambda row: -row.rate.mean)
    real = [row for row in held if not row.idealised]
    if not held:
        return "No allocator holds the limits at any rate."
    if held[0].idealised and real:
        first = held[0]
        head = f"{first.label} leads with {number(first.rate.mean)} {first.capacity.variant.what}"
        return f"{head} a second, but is idealised. Of those that can be built, {_best(real)}"
    return _best(held)


def _best(held: Sequence[Row]) -> str:
    first, *others = held
    text = (
        f"{first.label} sustains {number(first.rate.mean)} {first.capacity.variant.what} a second"
    )
    of = {row.label: ratio(row.capacity, first.capacity) for row in others}
    if first.rate.low is None:
        times = [f"{1 / of[row.label].mean:.2f} times {row.label}" for row in others[:1]]
        return f"{', '.join([text, *times])}; one sample does not say how sure that is."
    text += f" (95 %: {_ends(first.rate)})"
    level = [row.label for row in others if of[row.label].high >= 1.0]
    worse = next((row.label for row in others if of[row.label].high < 1.0), None)
    if worse is not None:
        than = of[worse]
        text += f", {1 / than.mean:.2f} times {worse} ({1 / than.high:.2f} to {1 / than.low:.2f})"
    if level:
        text += f"; not told apart from it at 95 %: {', '.join(level)}"
    return f"{text}."


def record(rows: Sequence[Row], asked: Asked) -> str:
    """Return the text of `capacity.json`."""
    price = asked.options.price_per_gpu_hour
    found = {
        "schema_version": SCHEMA_VERSION,
        **asked.question,
        "options": asdict(asked.options),
        "rows": [_row(row, price) for row in rows],
        "environment": describe_environment(),
    }
    return json.dumps(plain(found), indent=1, allow_nan=False) + "\n"


def _row(row: Row, price: float | None) -> dict[str, Any]:
    capacity = row.capacity
    return {
        "label": row.label,
        "allocator": capacity.variant.allocator,
        "options": capacity.variant.options,
        "gpus": capacity.variant.gpus,
        "requests": capacity.requests,
        "reason": capacity.reason,
        "rate": None if row.rate is None else asdict(row.rate),
        "of_best": None if row.of_best is None else asdict(row.of_best),
        "held_back_by": capacity.held_back_by if capacity.held else None,
        "limited_by": None if row.limited_by is None else dict([row.limited_by]),
        "idealised": row.idealised,
        "seeds": [
            {"seed": h.seed, "holds": h.below.rate, "fails": h.above.rate} for h in capacity.held
        ],
        "metrics": row.metrics,
        "price_per_million": {
            name: row.price(f"{name}_tokens_per_s", price) for name in ("output", "total")
        },
        "curve": [
            {
                "rate": seen.rate,
                "diverges": seen.diverges,
                "counted": seen.counted,
                "metrics": seen.metrics,
            }
            for seen in capacity.curve
        ],
    }


def _limited(row: Row) -> str:
    limit = row.limited_by
    return "nobody waits" if limit is None else f"{limit[0]} {number(100 * limit[1])}"


def _metric_head(metric: str) -> tuple[str, float, str]:
    """Return a latency's title, the factor to the unit that it is shown in, and that unit."""
    if metric == GOOD_SHARE:
        return "good", 100.0, "%"
    unit, words = BY_NAME[metric].unit, metric.removesuffix("_s").split("_")
    name = words[0].upper() if words[0] in ("ttft", "tpot", "itl") else words[0]
    title = " ".join([name, *words[1:]]).replace("normalized latency mean", "norm. latency")
    per_token = unit == "s/token" or words[0] in ("tpot", "itl")
    return title, 1000.0 if per_token else 1.0, "ms" if per_token else "s"


def _text(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else number(value * scale)


def _mean(found: Interval | None) -> str:
    return "-" if found is None else number(found.mean)


def _ends(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "-"
    return f"{number(max(0.0, found.low))}-{number(found.high)}"


def _ratio(found: Interval | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.low == found.high:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} ({found.low:.2f}-{found.high:.2f})"
