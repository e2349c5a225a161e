"""Whether a lead is merely what the clock charges for block tables, by a run's own records.

A step's software is a step's constants, those of each sequence that samples, and the block tables:
their entries written by the host, and their way to the device (`harness.cost.software`).  A row
holds the whole, the steps and the tokens sampled, so what is left of the whole is the tables'.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.collection import Run
from harness.report.numbers import percent
from harness.report.ranking import CLOSE, listed
from harness.results.runlog import ResultRow

#: what is left of a lead that is the tables' is at most this part of it
_MOST_LEFT = 0.5


def table_share(run: Run, row: ResultRow) -> float:
    """The share of a row's time that its clock charged for block tables; 0 where nobody can tell.

    That is beside a CPU that works while the GPU does, in static batches (padding samples too), in
    drafts, and where a piece of a prompt costs something besides what it samples.
    """
    software, engine, sampling = (_section(run, n) for n in ("software", "engine", "sampling"))
    chunked = engine.get("policy") == "chunked"
    unknown = ("prefill_us", "token_us", *(["sequence_us"] if chunked else []))
    if (
        run.clock != "simulated"
        or software.get("overlapped") is not False
        or engine.get("policy") not in ("continuous", "orca", "chunked")
        or sampling.get("mode") == "speculative"
        or any(_number(software, name) for name in unknown)
    ):
        return 0.0
    seconds = _number(row.metrics, "makespan_s")
    step_us = _number(software, "step_us")
    if (run.gpus or 1) > 1:
        step_us += _number(software, "workers_us")
    sampled = _number(row.metrics, "output_tokens_per_s") * seconds
    others_us = _number(row.metrics, "steps") * step_us
    others_us += sampled * (_number(software, "sampling_us") + _number(software, "sequence_us"))
    if not seconds:
        return 0.0
    return max(0.0, _number(row.metrics, "time_software_share") - others_us * 1e-6 / seconds)


def is_of_tables(run: Run, best: ResultRow, other: ResultRow, lead: float) -> bool:
    """Whether a lead of so many times would be none, or next to none, without block tables."""
    left = lead * (1 - table_share(run, other)) / (1 - table_share(run, best))
    return left <= 1 + min(CLOSE, _MOST_LEFT * (lead - 1))


def of_tables(
    run: Run, best: ResultRow, leads: Sequence[tuple[ResultRow, float]], level: str
) -> str:
    """A clause that names those over whom the lead is that of block tables alone; "" if nobody.

    leads: rows with how many times as good the best one is.  level: what they would do without.
    """
    named = [row for row, lead in leads if lead > 1 + CLOSE and is_of_tables(run, best, row, lead)]
    if not named:
        return ""
    each = listed([f"{row.allocator} {percent(table_share(run, row))}" for row in named])
    who = "it" if len(named) == 1 else "they"
    name = _section(run, "software").get("name")
    return (
        f"software={name} charges {each} of the time for block tables, without which {who} would "
        f"{level}"
    )


def _section(run: Run, name: str) -> dict[str, object]:
    found = run.config.get(name)
    return found if isinstance(found, dict) else {}


def _number(values: dict[str, object], name: str) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
