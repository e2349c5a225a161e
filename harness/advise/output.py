"""What the command prints and writes: tables, `advice.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from harness.advise import words
from harness.advise.advice import Advice
from harness.advise.evidence import Around, per_gpu
from harness.advise.knobs import BY_NAME
from harness.capacity.output import IDEALISED, MARK
from harness.capacity.search import Capacity
from harness.command.tables import text_table
from harness.report.numbers import number
from harness.results import describe_environment
from harness.results.writer import plain

SCHEMA_VERSION = 1
#: letters of a line of a table, at most
WIDTH = 100


@dataclass(frozen=True)
class Table:
    """A table: its title, the heads of its columns, its rows."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(advice: Advice) -> list[Table]:
    """Return the tables of an answer that have any row."""
    found = [_knobs(advice), _evidence(advice), _answers(advice)]
    return [table for table in found if table.rows]


def text(advice: Advice) -> str:
    """Return the answer as a terminal shows it."""
    parts = [words.paragraph(advice)]
    parts += [
        f"{table.title}\n{text_table(table.heads, table.rows, 'l' * len(table.heads), WIDTH)}"
        for table in tables(advice)
    ]
    parts.append("\n".join(words.server_lines(advice)))
    parts += legend(advice)
    if advice.not_asked:
        parts.append("Not looked at: " + "; ".join(advice.not_asked) + ".")
    return "\n\n".join(parts)


def legend(advice: Advice) -> list[str]:
    """Return what a mark in the tables means, and what another type of KV does, if any has it."""
    weighed = advice.weighed.capacities.values() if advice.weighed else ()
    found = [f"{MARK} {IDEALISED}."] if any(each.variant.idealised for each in weighed) else []
    if advice.space.kv_dtypes[1:]:
        found.append(
            "kv_dtype: rates alone are compared. With another type than auto the model's outputs "
            "may differ; its accuracy is to be checked."
        )
    return found


def how(advice: Advice) -> str:
    """Return how the answer came about, in a line."""
    options, searched = advice.asked.options, "until nothing was better"
    if not advice.searched:
        searched = "until its time was up; a repeated question goes on from there"
    one = advice.space.variant(advice.setting)
    seeds = "one sample" if one is not None and not one.seeds_differ else f"{options.seeds} seeds"
    return (
        f"{advice.requests:,} requests a run; searched on one seed {searched}; weighed over "
        f"{seeds} other than that; {len(advice.history)} incumbents"
    )


def _knobs(advice: Advice) -> Table:
    space, setting = advice.space, advice.setting
    around = {each.name: each for each in advice.around}
    weighed = advice.weighed
    worth = {each.name: words.worth(each) for each in weighed.worth} if weighed else {}
    dropped = {each.name: each for each in weighed.dropped} if weighed else {}
    rows = []
    for name, value in words.values(advice).items():
        if name in space.fixed:
            rows.append((name, value, value, "set by an option", "", BY_NAME[name].what))
            continue
        default = space.default_of(BY_NAME[name], space.allocator(setting)) or "-"
        tried = around.get(name)
        said = worth.get(name, "")
        if name in dropped and not said:
            said = f"{dropped[name].value}: {words.worth(dropped[name])}, within noise"
        others = _others(tried) if tried else "not tried"
        if BY_NAME[name] not in space.knobs:
            others = "not searched"
        rows.append((name, value, default, said, others, BY_NAME[name].what))
    heads = ("knob", "advised", "default", "worth, 95 %", "other values", "what it is")
    return Table("Settings", heads, rows)


def _others(tried: Around) -> str:
    found = []
    if tried.better:
        found.append(f"{' '.join(tried.better)} better on one seed")
    if tried.level:
        found.append(f"{' '.join(tried.level)} level")
    if tried.worse:
        found.append(f"{' '.join(tried.worse)} worse")
    if tried.refused:
        found.append(f"{' '.join(value for value, _ in tried.refused)} not served")
    return ", ".join(found)


def _evidence(advice: Advice) -> Table:
    rows = []
    weighed = advice.weighed
    if weighed is not None:
        for setting, capacity in weighed.capacities.items():
            label = f"{setting.label}{MARK * capacity.variant.idealised}"
            if not capacity.held:
                rows.append((label, "-", "-", words.short(capacity.reason), ""))
                continue
            found = per_gpu(capacity)
            ends = (
                "-" if found.low is None else f"{number(found.low)} to {number(found.high or 0.0)}"
            )
            seeds = " ".join(f"{h.seed}:{(h.below.rate or 0.0):g}" for h in capacity.held)
            rows.append((label, number(found.mean), ends, capacity.held_back_by, seeds))
    heads = ("setting", "a second and GPU", "95 %", "held back by", "seed: highest rate that holds")
    return Table("Evidence", heads, rows)


def _answers(advice: Advice) -> Table:
    rows = []
    for answer in advice.answers:
        what = "no rate" if answer.times is None else f"x {answer.times:.2f}"
        becomes = answer.reason or "stays"
        if answer.flips or answer.idle:
            becomes = f"changes: {'; '.join(words.flips(advice, answer))}"
        rows.append((answer.perturbation.name, what, becomes))
    return Table("What would change it", ("other", "capacity", "the choice"), rows)


def record(advice: Advice) -> str:
    """Return the text of `advice.json`."""
    space, setting, weighed = advice.space, advice.setting, advice.weighed
    found = {
        "schema_version": SCHEMA_VERSION,
        "advice": words.paragraph(advice),
        "settings": dict(setting.changed),
        "values": words.values(advice),
        "options": space.lines(setting),
        "allocator": space.allocator(setting),
        "fixed": list(space.fixed),
        **advice.asked.question,
        "own_options": asdict(advice.asked.options),
        "requests": advice.requests,
        "searched": advice.searched,
        "interrupted": advice.interrupted,
        "complete": weighed is not None and weighed.complete,
        "search": [
            {"settings": dict(each.setting.changed), "per_gpu": each.per_gpu}
            for each in advice.history
        ],
        "refused": [
            {"settings": dict(each.changed), "reason": why} for each, why in advice.refused.items()
        ],
        "evidence": [
            _capacity(dict(each.changed), capacity)
            for each, capacity in (weighed.capacities if weighed else {}).items()
        ],
        "over_default": asdict(weighed.over_default) if weighed and weighed.over_default else None,
        "worth": [asdict(each) for each in (weighed.worth if weighed else [])],
        "dropped": [asdict(each) for each in (weighed.dropped if weighed else [])],
        "around": [asdict(each) for each in advice.around],
        "fleet": None if advice.fleet is None else _fleet(advice),
        "other_workloads": [
            {
                "name": answer.perturbation.name,
                "options": answer.perturbation.lines,
                "times": answer.times,
                "reason": answer.reason,
                "flips": [
                    {"settings": dict(other.changed), "ratio": asdict(gain)}
                    for other, gain in answer.flips
                ],
                "idle": [{"knob": name, "ratio": asdict(gain)} for name, gain in answer.idle],
            }
            for answer in advice.answers
        ],
        "not_asked": advice.not_asked,
        "servers": words.server_lines(advice),
        "environment": describe_environment(),
    }
    return json.dumps(plain(found), indent=1, allow_nan=False) + "\n"


def _fleet(advice: Advice) -> dict[str, Any]:
    fleet = advice.fleet
    assert fleet is not None
    return {
        "rate": fleet.rate,
        "gpus": fleet.gpus,
        "servers": fleet.servers,
        "gpus_a_server": fleet.a_server,
        "sure_a_server": fleet.sure,
        "carried_a_server": fleet.carried,
        "margin": fleet.margin,
        "runs": len(fleet.checked),
        "runs_held": fleet.held,
        "metrics": [dict(each.metrics) for each in fleet.checked],
    }


def _capacity(settings: dict[str, str], capacity: Capacity) -> dict[str, Any]:
    return {
        "settings": settings,
        "options": capacity.variant.options,
        "gpus": capacity.variant.gpus,
        "reason": capacity.reason,
        "per_gpu": asdict(per_gpu(capacity)) if capacity.held else None,
        "held_back_by": capacity.held_back_by,
        "seeds": [
            {"seed": h.seed, "holds": h.below.rate, "fails": h.above.rate} for h in capacity.held
        ],
        "metrics": dict(capacity.held[0].below.metrics) if capacity.held else {},
    }
