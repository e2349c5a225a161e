"""Serves public load sweeps, and prints measured beside simulated and where both saturate.

    python -m tests.published.knee [CURVE ... | all] [step_us=N ...] [fit=true] [figure=PATH]

Without a curve: those that count.  What a knee is, and which curves there are, is in
`tests.published.sweeps`.  A constant of a profile replaces that of vLLM V1.  `fit=true` first fits
those of the profile's file that `HOST_FITS` says, to end-to-end latency on the runs it names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from harness.command.tables import markdown_table
from harness.cost import SoftwareSpec
from tests.published.sweeps import (
    CURVES,
    HOST_FITS,
    Curve,
    HostFit,
    Load,
    below,
    knee_of,
    run,
    sides,
    take_off_of,
)

NEAR = 0.1
SHOWN = ("4090-r1-llama-8b", "4090-r1-qwen-7b", "h100-r1-qwen-14b", "h100-qwq-32b")
FOUND = (
    ("knee", knee_of, "requests_per_s"),
    ("take-off", take_off_of, "e2e_ms"),
    ("most served", lambda _, served: max(served), "requests_per_s"),
)
Curves = Mapping[str, Sequence[Load]]


def _error(pair: tuple[float, float]) -> str:
    return "" if np.isnan(pair).any() else f"{pair[1] / pair[0] - 1:+.1%}"


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4g}"


def _pair(load: Load, what: str) -> tuple[float, float]:
    return getattr(load.measured, what), getattr(load.simulated, what)


def _is_curve(loads: Sequence[Load]) -> bool:
    return len(loads) > 1 and not np.isnan([load.load for load in loads]).any()


def report(curve: Curve, loads: Sequence[Load]) -> Iterator[str]:
    """Yield the lines that a curve has to say; ms, and requests/s."""
    yield f"## {curve.title}{'' if curve.counted else f' (not counted: {curve.why})'}\n"
    whats = ("requests_per_s", "e2e_ms", "ttft_ms", "tpot_ms")
    head = ("load", "served", "simulated", "end to end", "simulated", "error: served", "end to end",
            "TTFT", "TPOT")  # fmt: skip
    rows = []
    for load in loads:
        pairs = [_pair(load, what) for what in whats]
        name = f"{load.load:g}" if _is_curve(loads) else load.row["id"]
        rows.append(
            [name, *(_cell(v) for pair in pairs[:2] for v in pair), *(_error(p) for p in pairs)]
        )
    yield markdown_table(head, rows, "l" + "r" * 8)


def verdict(curves: Curves) -> Iterator[str]:
    """Yield what the curves that count say of the two claims."""
    rows, near, several = [], 0, 0
    for name, loads in curves.items():
        if not CURVES[name].counted:
            continue
        found = [sides(loads, find, what) for _, find, what in FOUND]
        errors = [s / m - 1 for m, s in (_pair(load, "e2e_ms") for load in below(loads))]
        errors = [error for error in errors if not np.isnan(error)]
        near, several = near + sum(abs(e) <= NEAR for e in errors), several + len(errors)
        rows.append([
            CURVES[name].title,
            f"{min(errors):+.1%} to {max(errors):+.1%}" if errors else "",
            *(f"{_cell(m) or '-'} / {_cell(s) or '-'} {_error((m, s))}" for m, s in found),
        ])  # fmt: skip
    if rows:
        head = ("measured / simulated", "end to end", *(name for name, *_ in FOUND))
        yield markdown_table(head, rows, "lrrrr")
        yield f"\nbelow saturation: {near} of {several} runs within {NEAR:.0%} end to end"


def latency_error(name: str, **constants: float) -> float:
    """Return the relative error of a run's mean end-to-end latency."""
    load = run(name, **constants)
    return load.simulated.e2e_ms / load.measured.e2e_ms - 1


def fit(host: HostFit, pool: ProcessPoolExecutor, known: Mapping[str, float]) -> dict[str, float]:
    """Return its constants with the smallest sum of squared errors; `known` stay as they are."""

    def errors(values: np.ndarray) -> list[float]:
        constants = {**known, **dict(zip(host.first, values.tolist(), strict=True))}
        return list(pool.map(partial(latency_error, **constants), host.rows))

    first = [*host.first.values()]
    # Steps of a tenth: a simulation is no smooth function of its constants.
    found = least_squares(
        errors, first, bounds=(0, np.inf), x_scale=first, diff_step=0.1, max_nfev=6
    )
    return dict(zip(host.first, found.x.tolist(), strict=True))


def draw(curves: Curves, path: Path) -> None:
    """Write a picture: throughput and latency over load, measured and simulated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False, sharex=True)
    for column, (name, loads) in enumerate(curves.items()):
        at = [load.load for load in loads]
        for row, (what, unit, scale) in enumerate(
            (("requests_per_s", "requests/s served", 1.0), ("e2e_ms", "end to end, s", 1e-3))
        ):
            plot = axes[row][column]
            for side, style in (("measured", "o"), ("simulated", "-")):
                values = [scale * getattr(getattr(load, side), what) for load in loads]
                plot.plot(at, values, style, label=side, color="C1" if style == "o" else "C0")
            plot.set_xscale("log", base=2)
            plot.set_ylim(bottom=0)
            plot.set_xticks(at, [f"{load:g}" for load in at])
            plot.grid(alpha=0.3)
            if column == 0:
                plot.set_ylabel(unit)
        axes[0][column].set_title(CURVES[name].title, fontsize=9)
        axes[1][column].set_xlabel("requests/s sent")
    axes[0][0].legend()
    figure.savefig(path, dpi=100)


def main(arguments: list[str]) -> int:
    """Print the curves and the verdict on those that count; exit status 2 for what is unknown."""
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    names = [argument for argument in arguments if "=" not in argument]
    names = [*CURVES] if names == ["all"] else names
    names = names or [name for name, curve in CURVES.items() if curve.counted]
    constants = {field.name for field in fields(SoftwareSpec)} - {"name"}
    for unknown, known in (
        (set(names) - set(CURVES), CURVES),
        (set(options) - {"fit", "figure"} - constants, ("fit", "figure", *sorted(constants))),
    ):
        if unknown:
            print(f"{min(unknown)} is unknown; there are {', '.join(known)}", file=sys.stderr)
            return 2
    try:
        overrides = {name: float(options[name]) for name in constants & set(options)}
    except ValueError as error:
        print(f"a constant must be a number: {error}", file=sys.stderr)
        return 2
    with ProcessPoolExecutor() as pool:
        for host in HOST_FITS if options.get("fit") == "true" else ():
            overrides |= fit(host, pool, overrides)
            print(f"fitted on {', '.join(host.rows)}: {overrides}\n", flush=True)
        rows = [row for name in names for row in CURVES[name].rows]
        done = dict(zip(rows, pool.map(partial(run, **overrides), rows), strict=True))
    curves = {name: [done[row] for row in CURVES[name].rows] for name in names}
    for name, loads in curves.items():
        print("\n".join(report(CURVES[name], loads)), end="\n\n")
    print("\n".join(verdict(curves)))
    if "figure" in options:
        draw({name: curves[name] for name in SHOWN if name in curves}, Path(options["figure"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
