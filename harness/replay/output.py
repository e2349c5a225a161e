"""What a replay prints and writes: tables, `replay.json`, `requests.csv`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.command.tables import text_table
from harness.replay.compared import Compared, Side
from harness.replay.fit import Fit
from harness.replay.measured import MeasuredRun
from harness.replay.parts import Part
from harness.replay.server_metrics import Beside, ServerMetrics
from harness.report.numbers import number
from harness.results import describe_environment
from harness.results.atomic import write_text
from harness.results.writer import plain
from workloads.requests import IntArray

SCHEMA_VERSION = 1
NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "end to end"}
COLUMNS = (
    "request", "arrival_s", "prompt_tokens", "output_tokens", "measured_ttft_s", "measured_e2e_s",
    "simulated_arrival_s", "simulated_ttft_s", "simulated_e2e_s",
)  # fmt: skip


@dataclass
class Replay:
    """Everything that a replay found; `config` is the simulated run's.

    rows: the places in the measured run of the requests that `sides` have.
    """

    file: str
    measured: MeasuredRun
    rows: IntArray
    sides: tuple[Side, Side]
    compared: list[Compared]
    request_errors: dict[str, float]
    parts: list[Part]
    config: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    server: ServerMetrics | None = None
    fit: Fit | None = None
    beside: list[Beside] = field(default_factory=list)

    @property
    def simulated_name(self) -> str:
        """What was simulated: the model, its hardware and its software."""
        hardware = self.config["hardware"]
        gpus = "" if hardware["count"] == 1 else f"{hardware['count']} x "
        software = self.config["software"]["name"]
        return f"{self.config['model']['name']} on {gpus}{hardware['name']}, software={software}"

    @property
    def headline(self) -> str:
        """What was replayed, in a line."""
        run = self.measured
        asked = [
            f"rate {run.rate:g}" + ("" if math.isinf(run.rate) else "/s") if run.rate else "",
            f"closed loop of {run.max_concurrency}" if run.max_concurrency else "",
            f"model {run.model}" if run.model else "",
        ]
        said = ", ".join(part for part in asked if part)
        return (
            f"{self.file}: {run.format}, {len(self.sides[0].ttft_s)} requests"
            f"{f' ({said})' if said else ''}; simulated: {self.simulated_name}"
        )


def error_text(error: float | None) -> str | None:
    """An error in percent, signed; None where there is none."""
    return None if error is None else f"{100 * error:+.1f}"


def main_table(compared: Sequence[Compared]) -> str:
    """A line a number: measured, simulated, the error in percent."""
    rows = []
    for each in compared:
        rate = each.statistic == "rate"
        name = f"{each.quantity}/s" if rate else f"{NAMES[each.quantity]} {each.statistic}, ms"
        values = (
            None if value is None else number(value if rate else 1e3 * value)
            for value in (each.measured, each.simulated)
        )
        rows.append((name, *values, error_text(each.error)))
    return text_table(("", "measured", "simulated", "error, %"), rows)


def parts_table(parts: Sequence[Part]) -> str:
    """A line a part of the mean end-to-end latency, and the share of the error that is its."""
    total_s = sum(part.measured_s for part in parts)
    rows = [
        (
            part.name,
            number(1e3 * part.measured_s),
            number(1e3 * part.simulated_s),
            error_text(part.difference_s / total_s if total_s > 0 else None),
        )
        for part in parts
    ]
    head = ("mean, ms", "measured", "simulated", "points of the error of end to end")
    return text_table(head, rows)


def server_table(beside: Sequence[Beside]) -> str:
    """The server's own gauges beside the simulation's."""
    rows = [
        (
            f"{each.name}, {each.unit}",
            *(
                number(value)
                for value in (
                    each.server_mean,
                    each.server_peak,
                    each.simulated_mean,
                    each.simulated_peak,
                )
            ),
        )
        for each in beside
    ]
    return text_table(("", "server", "its peak", "simulated", "its peak"), rows)


def fit_table(fit: Fit) -> str:
    """Both halves before the fit and after it, errors in percent."""
    rows = [
        (
            f"{half} ({len(rows)} requests), {moment}",
            *(error_text(errors.get(name)) for name in ("ttft", "tpot", "e2e", "single_e2e")),
        )
        for half, rows in (("fitted", fit.fitted), ("checked", fit.checked))
        for moment, errors in fit.errors[half].items()
    ]
    head = ("error, %", "TTFT", "TPOT", "end to end", "of a request")
    options = " ".join(fit.options)
    return f"{text_table(head, rows)}\nsoftware={fit.start.name} {options}"


def text(replay: Replay) -> str:
    """All tables, as a terminal shows them."""
    pieces = [replay.headline, main_table(replay.compared)]
    each = [f"{NAMES[name]} {100 * e:.1f} %" for name, e in replay.request_errors.items()]
    if each:
        pieces.append(f"mean error of a single request: {', '.join(each)}")
    pieces.append(parts_table(replay.parts))
    if replay.beside and replay.server is not None:
        scrapes = f"{replay.server.scrapes} scrape{'s' if replay.server.scrapes > 1 else ''}"
        pieces.append(f"server's own metrics, {scrapes}\n{server_table(replay.beside)}")
    if replay.fit is not None:
        pieces.append(fit_table(replay.fit))
        pieces.insert(1, "the second half of the run, on which nothing was fitted:")
    return "\n\n".join(pieces)


def write(out: Path, replay: Replay) -> None:
    """Write `replay.json` and `requests.csv`, each at once."""
    record = plain(_record(replay))
    write_text(out / "replay.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(out / "requests.csv", _requests(replay))
    if replay.fit is not None:
        write_text(out / "software.yaml", _profile(replay, replay.fit))


def _profile(replay: Replay, fit: Fit) -> str:
    """The fitted constants as a file of `conf/software`."""
    error = fit.errors["checked"]["after"]["e2e"]
    lines = [
        f"# Fitted on the first half of {replay.file} ({len(fit.fitted)} requests) with",
        f"# {replay.simulated_name}, from software={fit.start.name};",
        f"# on the second half mean end-to-end latency is {100 * error:+.1f} % off.",
        *(f"{name}: {json.dumps(value)}" for name, value in vars(fit.software).items()),
    ]
    return "\n".join(lines) + "\n"


def _fit_record(fit: Fit) -> dict[str, Any]:
    return {
        "software": vars(fit.software),
        "start": vars(fit.start),
        "fitted_requests": len(fit.fitted),
        "checked_requests": len(fit.checked),
        "simulations": fit.simulations,
        "errors": fit.errors,
    }


def _record(replay: Replay) -> dict[str, Any]:
    run = replay.measured
    return {
        "schema_version": SCHEMA_VERSION,
        "measured": {
            "file": replay.file,
            "format": run.format,
            "requests": len(run),
            "failed": run.failed,
            "arrivals": run.arrivals,
            "model": run.model,
            "rate": run.rate,
            "max_concurrency": run.max_concurrency,
            "duration_s": run.duration_s,
        },
        "compared_requests": len(replay.sides[0].ttft_s),
        "metrics": [{**asdict(each), "error": each.error} for each in replay.compared],
        "request_errors": replay.request_errors,
        "parts": [{**asdict(p), "difference_s": p.difference_s} for p in replay.parts],
        "server": None if replay.server is None else asdict(replay.server),
        "fit": None if replay.fit is None else _fit_record(replay.fit),
        "server_beside": [asdict(each) for each in replay.beside],
        "notes": replay.notes,
        "config": replay.config,
        "environment": describe_environment(),
    }


def _requests(replay: Replay) -> str:
    """A line a request, both sides, in order of measured arrival."""
    left, right = replay.sides
    n = len(left.ttft_s)
    index = replay.measured.index[replay.rows]
    arrival_s = np.full(n, np.nan) if left.arrival_s is None else left.arrival_s
    rows = zip(
        index.tolist(),
        arrival_s.tolist(),
        left.prompt_tokens.tolist(),
        left.output_tokens.tolist(),
        left.ttft_s.tolist(),
        left.e2e_s.tolist(),
        right.arrival_s.tolist(),
        right.ttft_s.tolist(),
        right.e2e_s.tolist(),
        strict=True,
    )
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return file.getvalue()


def _cell(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if np.isnan(value) else f"{value:.6f}"
