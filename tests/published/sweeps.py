"""Public load sweeps that took no part in a fit, and where they saturate.

A curve is one server at several loads: requests/s that clients sent, or requests in flight.

served     requests over the time from the first arrival to the last end
knee       the least load at which `served` reaches 95 % of its largest, between loads by the line
           over their logarithms; not seen where the last load still serves a tenth more than the
           one before
take-off   the load at which mean end-to-end latency is 1.5 times that of the lightest load,
           between loads by the line over both logarithms; not seen where it stays below

Both sides are asked by the same rule.  A load is below saturation if it is below the measured
knee, or if there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.cost import SoftwareSpec
from tests.places import shipped
from tests.published.points import server
from tests.published.served import Served, serve

MOST_SERVED = 0.95
STILL_RISING = 1.1
SLOWER = 1.5
#: the rates of syst-*-capacity, over the requests/s of a closed loop before it: these, and then on
#: in steps of 0.1 until that serves no hundredth more
CLOSED_LOOP = 1.50342
STEPS = (0.3, 0.5, 0.7, 0.85, 1.0)


@dataclass(frozen=True)
class Curve:
    """Rows of servers.csv at rising loads.

    `counted`: the verdict is on these; the others are shown, and `why` says what they lack.
    """

    title: str
    rows: Sequence[str]
    counted: bool = True
    why: str = ""


@dataclass(frozen=True)
class HostFit:
    """Constants of vLLM V1's host that runs without asynchronous scheduling tell of.

    `first` has a first guess for each; they are fitted to the end-to-end latency of `rows`.
    """

    first: Mapping[str, float]
    rows: Sequence[str]


#: in this order: the second is fitted with the first in place
HOST_FITS = (
    HostFit(
        {"step_us": 1000.0, "sequence_us": 20.0},
        [f"iog-{gpu}-llama-3-8b-{rate}" for gpu in ("rtx4090", "h100pcie")
         for rate in ("01", "04", "16")],
    ),
    HostFit({"workers_us": 1000.0}, ["llmk8s-70b-tp8-01"]),
)  # fmt: skip
FITTED = {"counted": False, "why": "step_us and sequence_us are fitted on three of its loads"}


def _iog(gpu: str, model: str, title: str, **more: object) -> Curve:
    rates = ("01", "04", "08", "16", "32")
    return Curve(title, [f"iog-{gpu}-{model}-{rate}" for rate in rates], **more)


#: Chosen, and what counts decided, before any of them was simulated (results/published/README.md).
CURVES: Mapping[str, Curve] = {
    "4090-llama-3-8b": _iog("rtx4090", "llama-3-8b", "Llama-3-8B, RTX 4090", **FITTED),
    "4090-r1-llama-8b": _iog("rtx4090", "r1-llama-8b", "R1-Distill-Llama-8B, RTX 4090"),
    "4090-r1-qwen-7b": _iog("rtx4090", "r1-qwen-7b", "R1-Distill-Qwen-7B, RTX 4090"),
    "h100-llama-3-8b": _iog("h100pcie", "llama-3-8b", "Llama-3-8B, H100 PCIe", **FITTED),
    "h100-r1-llama-8b": _iog("h100pcie", "r1-llama-8b", "R1-Distill-Llama-8B, H100 PCIe"),
    "h100-r1-qwen-7b": _iog("h100pcie", "r1-qwen-7b", "R1-Distill-Qwen-7B, H100 PCIe"),
    "h100-acemath-7b": _iog("h100pcie", "acemath-7b", "AceMath-7B, H100 PCIe"),
    "h100-r1-qwen-14b": _iog("h100pcie", "r1-qwen-14b", "R1-Distill-Qwen-14B, H100 PCIe"),
    "h100-r1-qwen-32b": _iog("h100pcie", "r1-qwen-32b", "R1-Distill-Qwen-32B, H100 PCIe"),
    "h100-qwq-32b": _iog("h100pcie", "qwq-32b", "QwQ-32B, H100 PCIe"),
    "a100-qwen3-32b-short": Curve(
        "Qwen3-32B, A100 PCIe, 512 in, 256 out, closed",
        [f"a100pcie-qwen32b-512x256-c{n}" for n in (4, 8, 16, 24, 32)],
    ),
    "a100-qwen3-32b-long": Curve(
        "Qwen3-32B, A100 PCIe, 2048 in, 512 out, closed",
        [f"a100pcie-qwen32b-2048x512-c{n}" for n in (4, 8, 12, 16)],
    ),
    "h200-qwen3-32b": Curve("Qwen3-32B, H200, capacity", ["syst-h200-qwen3-32b-capacity"]),
    "a100-llama-3-70b": Curve(
        "Llama-3-70B, eight A100s",
        [f"llmk8s-70b-tp8-{rate}" for rate in ("01", "04", "16")],
        counted=False,
        why="workers_us is fitted on the first",
    ),
    "a10g-llama-2-7b": Curve(
        "Llama-2-7B, A10G",
        [f"nm0.5.0-a10g-llama-2-7b-{rate}" for rate in ("0.5", "1.0", "2.5", "5.0")],
        counted=False,
        why="lengths: a stand-in for another filter; its light loads check vllm-v0",
    ),
    "a10g-mistral-7b": Curve(
        "Mistral-7B, A10G",
        [f"nm0.5.0-a10g-mistral-7b-{rate}" for rate in ("0.5", "1.0", "2.5", "5.0")],
        counted=False,
        why="as above",
    ),
    "h200-sglang-70b": Curve(
        "Llama-3-70B, four H200s, SGLang",
        [f"h200-sglang-70b-on{i}" for i in range(5)],
        counted=False,
        why="sglang is fitted on the first four",
    ),
    "single": Curve(
        "one load each",
        ["a100pcie-qwen7b-tp1-short-r2", "a100pcie-qwen7b-tp1-prefill", "a100pcie-qwen7b-tp1-long",
         "a100pcie-qwen32b-512x256-open0.6", "syst-h200-qwen3-32b-085", "h100nvl-qwen3-32b-inf",
         "sglang060-llama-3-8b-sglang-inf", "sglang060-llama-3-8b-vllm-inf"],
        counted=False,
        why="no curve",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Load:
    """One row, measured and simulated; NaN is what its source does not say."""

    row: dict[str, str]
    load: float  # requests/s sent, or requests in flight; NaN: all at once
    measured: Served
    simulated: Served


def profile_of(row: Mapping[str, str], **overrides: float) -> SoftwareSpec:
    """Return the row's profile; what has no asynchronous scheduling goes without.

    `overrides` are constants of vLLM V1, which replace the profile's.
    """
    profile = shipped(SoftwareSpec, "software", row["profile"])
    if row["profile"] == "vllm-v1":
        profile = replace(profile, **overrides)
    return replace(profile, overlapped=False) if row["async_scheduling"][:2] == "no" else profile


def measured_of(row: Mapping[str, str]) -> Served:
    """Return what the client measured: means, and NaN for what it did not."""
    cells = [row[f"{what}_mean_ms"] for what in ("ttft", "tpot", "e2e")] + [row["requests_per_s"]]
    return Served(*(float(cell or "nan") for cell in cells))


def run(name: str, **overrides: float) -> Load:
    """Serve a row of servers.csv, with `overrides` as in `profile_of`."""
    row = server(name)
    profile = profile_of(row, **overrides)
    served = (_plateau if name.endswith("-capacity") else serve)(row, profile)
    load = float(row["rate_per_s"] or row["concurrency"] or "nan")
    return Load(row, load, measured_of(row), served)


def _plateau(row: Mapping[str, str], profile: SoftwareSpec) -> Served:
    rates = [step * CLOSED_LOOP for step in STEPS]
    runs = [serve({**row, "rate_per_s": str(rate)}, profile) for rate in rates]
    while len(runs) < 2 or runs[-1].requests_per_s > 1.01 * runs[-2].requests_per_s:
        rates.append(rates[-1] + 0.1 * CLOSED_LOOP)
        runs.append(serve({**row, "rate_per_s": str(rates[-1])}, profile))
    return max(runs, key=lambda served: served.requests_per_s)


def knee_of(loads: Sequence[float], served: Sequence[float]) -> float:
    """Return the load at which `served` reaches 95 % of its largest; NaN if it still rises."""
    if len(loads) < 2 or not np.isfinite(served).all() or served[-1] > STILL_RISING * served[-2]:
        return float("nan")
    enough = MOST_SERVED * max(served)
    i = int(np.argmax(np.asarray(served) >= enough))
    if i == 0:
        return loads[0]
    share = (enough - served[i - 1]) / (served[i] - served[i - 1])
    return float(loads[i - 1] * (loads[i] / loads[i - 1]) ** share)


def take_off_of(loads: Sequence[float], e2e_ms: Sequence[float]) -> float:
    """Return the load at which latency is 1.5 times the lightest load's; NaN if it stays below."""
    slow = SLOWER * e2e_ms[0]
    over = np.flatnonzero(np.asarray(e2e_ms) >= slow)
    if not len(over):
        return float("nan")
    i = int(over[0])
    share = np.log(slow / e2e_ms[i - 1]) / np.log(e2e_ms[i] / e2e_ms[i - 1])
    return float(loads[i - 1] * (loads[i] / loads[i - 1]) ** share)


def sides(
    loads: Sequence[Load], find: Callable[[list[float], list[float]], float], what: str
) -> tuple[float, float]:
    """Return what `find` makes of loads and their `what`: (measured, simulated)."""
    at = [load.load for load in loads]
    both = [([getattr(load.measured, what), getattr(load.simulated, what)]) for load in loads]
    measured, simulated = (find(at, list(values)) for values in zip(*both, strict=True))
    return measured, simulated


def below(loads: Sequence[Load]) -> list[Load]:
    """Return the loads below the measured knee; all where none was seen."""
    knee, _ = sides(loads, knee_of, "requests_per_s")
    return [load for load in loads if np.isnan(knee) or load.load < knee]
