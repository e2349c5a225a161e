"""Fits software profiles on published measurements, and checks them on others.

    python -m tests.published.software [PROFILE ...]

A profile's free constants are those for which the sum of the squared relative errors over its
points is smallest, within bounds (`scipy.optimize.least_squares`); what a point is stands in
`tests.published.points`.  Checks serve whole runs with the harness, where a run's requests are
known well enough, and else are points too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import least_squares

from harness.command.tables import markdown_table
from harness.cost import SoftwareSpec
from tests.places import shipped
from tests.published.points import Point, batch_points, server, server_points, step_points, table
from tests.published.served import serve

#: (least, most, first guess) of a constant; weights are read at 0.94 of the peak at best
FREE: Mapping[str, tuple[float, float, float]] = {
    "weight_read_slowdown": (0.745, 1.5, 1.0),
    "small_kernel_slowdown": (0.0, 5.0, 1.0),
    "all_reduce_slowdown": (0.0, 5.0, 0.5),
    "step_us": (0.0, 50_000.0, 1000.0),
    "sequence_us": (0.0, 2000.0, 10.0),
    "request_us": (0.0, 200_000.0, 10_000.0),
}


@dataclass(frozen=True)
class Study:
    """How one profile is fitted and checked.

    `served` are rows of servers.csv, each with what the profile overrides there; `points_with` is
    what it overrides for all points.
    """

    free: Sequence[str]
    fitted_on: Callable[[], list[Point]]
    checked_on: Callable[[], list[Point]] = list
    served: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    points_with: Mapping[str, object] = field(default_factory=dict)


def _rows(*starts: str) -> list[str]:
    return [row["id"] for row in table("servers") if row["id"].startswith(starts)]


#: vLLM 0.15.1 behind a real client, below saturation; 62 and 63 hold another model than they name
V1_FIT = (
    "infsim-155451", "infsim-162547", "infsim-202857", "infsim-203421", "infsim-231439",
    "infsim-084319", "infsim-150304", "infsim-150956", "infsim-155500",
)  # fmt: skip
V1_CHECK = ("infsim-60", "infsim-61", "infsim-64", "infsim-65", "infsim-66", "infsim-67")
V0_LOADS = ("llama-2-7b-0.5", "llama-2-7b-1.0", "mistral-7b-0.5", "mistral-7b-1.0",
            "mistral-7b-2.5")  # fmt: skip
GPT_20B = {"layers": 44, "hidden": 6144, "heads": 48, "kv_heads": 48, "ffn": 24576}
GPT_89B = {"layers": 48}
GPT_7B = {"layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 32, "ffn": 16384}
#: the sampler of August 2023 went through a batch row by row, until pull request 820
VECTORISED = {"sampling_us": 0.0}
SYNCHRONOUS = {"overlapped": False}

STUDIES: Mapping[str, Study] = {
    "vllm-v1": Study(
        ("weight_read_slowdown", "all_reduce_slowdown", "request_us"),
        lambda: server_points(_rows(*V1_FIT), hit=True),
        served={name: {} for name in _rows(*V1_CHECK)}
        | {f"llmk8s-70b-tp8-{rate}": SYNCHRONOUS for rate in ("04", "16", "inf")},
    ),
    "vllm-v0": Study(
        ("step_us", "sequence_us", "request_us"),
        lambda: server_points([f"nm0.3.0-a10g-{load}" for load in V0_LOADS], mixed=False),
        lambda: (
            server_points([f"nm0.5.0-a10g-{load}" for load in V0_LOADS], mixed=False)
            + server_points(
                [f"sglang060-llama-3-8b-vllm-{rate}" for rate in (4, 8)], mixed=False, ttft=False
            )
        ),
    ),
    "vllm-2023": Study(
        ("step_us", "sequence_us", "all_reduce_slowdown"),
        lambda: (
            step_points("vLLM", "OPT-13B", "opt-13b", (1,))
            + step_points("vLLM", "OPT-66B", "opt-66b", (4,))
        ),
        lambda: (
            step_points("vLLM", "OPT-13B", "opt-13b", (2, 4))
            + step_points("vLLM", "OPT-66B", "opt-66b", (3, 8))
        ),
        served={
            "v2023-820-llama13b": {},
            "v2023-820-llama13b-vectorised": VECTORISED,
            "v2023-670-llama7b": {},
        },
        points_with=VECTORISED,
    ),
    "sglang": Study(
        ("weight_read_slowdown", "all_reduce_slowdown", "sequence_us", "request_us"),
        lambda: server_points([f"h200-sglang-70b-on{i}" for i in range(4)], mixed=False),
        served={f"h200-sglang-70b-{run}": {} for run in ("on5", "on6", "off0", "off1", "off6")},
    ),
    "fastertransformer": Study(
        ("step_us", "sequence_us"),
        lambda: batch_points("GPT-20B", GPT_20B, 1) + batch_points("GPT-20B", GPT_20B, 8),
        lambda: (
            batch_points("GPT-20B", GPT_20B, 2)
            + batch_points("GPT-20B", GPT_20B, 4)
            + batch_points("GPT-175B", {}, 8)
            + batch_points("GPT-89B", GPT_89B, 8)
            + batch_points("GPT-6.7B", GPT_7B, 1)
        ),
    ),
}


def fit(study: Study, profile: SoftwareSpec) -> SoftwareSpec:
    """Return the profile with its free constants fitted; what it has for them does not count."""
    points = study.fitted_on()
    base = replace(profile, **study.points_with)
    least, most, first = np.array([FREE[name] for name in study.free]).T

    def with_(values: np.ndarray) -> SoftwareSpec:
        return replace(base, **dict(zip(study.free, values.tolist(), strict=True)))

    def errors(values: np.ndarray) -> list[float]:
        software = with_(values)
        return [point.error(software) for point in points]

    return with_(least_squares(errors, first, bounds=(least, most), x_scale=first).x)


def served_errors(study: Study, profile: SoftwareSpec) -> Iterator[tuple[str, str, float, float]]:
    """Yield (run, what, measured, simulated) of each run that is served."""
    for name, overrides in study.served.items():
        row = server(name)
        run = serve(row, replace(profile, **overrides))
        for what in ("ttft_ms", "tpot_ms", "e2e_ms", "requests_per_s"):
            measured = row[what if what == "requests_per_s" else what.replace("_", "_mean_")]
            # Below saturation the rate is the client's.
            if measured and not (what == "requests_per_s" and row["rate_per_s"]):
                yield name, what, float(measured), getattr(run, what)


def report(name: str) -> Iterator[str]:
    """Yield the lines that a study has to say."""
    study, profile = STUDIES[name], shipped(SoftwareSpec, "software", name)
    fitted = fit(study, profile)
    yield f"## {name}\n"
    rows = [
        (f"`{free}`", f"{getattr(fitted, free):.4g}", getattr(profile, free)) for free in study.free
    ]
    yield markdown_table(("constant", "fitted", "in the file"), rows, "lrr")
    for title, points in (("fitted on", study.fitted_on()), ("checked on", study.checked_on())):
        if points:
            software = replace(profile, **study.points_with)
            errors = np.array([point.error(software) for point in points])
            yield (
                f"\n{title} {len(points)} points: mean error {np.abs(errors).mean():.1%}, "
                f"largest {np.abs(errors).max():.1%}, bias {errors.mean():+.1%}"
            )
    rows = [
        (run, what, f"{measured:.4g}", f"{ours:.4g}", f"{ours / measured - 1:+.1%}")
        for run, what, measured, ours in served_errors(study, profile)
    ]
    if rows:
        yield "\n" + markdown_table(("served", "", "measured", "simulated", "error"), rows, "llrrr")


def main(arguments: list[str]) -> int:
    """Print fits and checks; exit status 2 for a profile that is fitted to nothing."""
    unknown = [name for name in arguments if name not in STUDIES]
    if unknown:
        print(f"{unknown[0]} is not fitted; there are {', '.join(STUDIES)}", file=sys.stderr)
        return 2
    for name in arguments or STUDIES:
        for line in report(name):
            print(line, flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
