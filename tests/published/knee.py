"""Serves public load sweeps that took no part in a fit, and finds where they saturate.

    python -m tests.published.knee [CURVE ...] [figure=PATH]

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

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.command.tables import markdown_table
from harness.cost import SoftwareSpec
from tests.places import shipped
from tests.published.points import server
from tests.published.served import Served, serve

MOST_SERVED = 0.95
STILL_RISING = 1.1
SLOWER = 1.5
#: the rates of syst-*-capacity, over the 1.50342 requests/s of a closed loop before it
STEPS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.1, 1.2)


@dataclass(frozen=True)
class Curve:
    """Rows of servers.csv at rising loads.

    `counted`: the verdict is on these; the others are shown, and `why` says what they lack.
    """

    title: str
    rows: Sequence[str]
    counted: bool = True
    why: str = ""


def _iog(gpu: str, model: str, title: str) -> Curve:
    rates = ("01", "04", "08", "16", "32")
    return Curve(title, [f"iog-{gpu}-{model}-{rate}" for rate in rates])


#: Chosen, and what counts decided, before any of them was simulated (results/published/README.md).
CURVES: Mapping[str, Curve] = {
    "4090-llama-3-8b": _iog("rtx4090", "llama-3-8b", "Llama-3-8B, RTX 4090"),
    "4090-r1-llama-8b": _iog("rtx4090", "r1-llama-8b", "R1-Distill-Llama-8B, RTX 4090"),
    "4090-r1-qwen-7b": _iog("rtx4090", "r1-qwen-7b", "R1-Distill-Qwen-7B, RTX 4090"),
    "h100-llama-3-8b": _iog("h100pcie", "llama-3-8b", "Llama-3-8B, H100 PCIe"),
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
