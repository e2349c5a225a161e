"""What a client expects of each request: limits on its latencies, and which requests keep them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from harness.errors import ConfigError
from harness.results.runlog import Columns

#: metrics that are not defined without a limit
COUNTS_GOOD = ("goodput_requests_per_s", "good_share")


@dataclass
class SloSpec:
    """The most seconds that a request may take and be good; null sets no limit.

    ttft_s: to its first output token. itl_s: its longest gap between two tokens. tpot_s: a token
    after the first, on average. e2e_s: to its end.
    """

    ttft_s: float | None = None
    itl_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by their names."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: float(limit) for name, limit in given.items() if limit is not None}


def check_slo(spec: SloSpec) -> None:
    """Raise `ConfigError` for limits that contradict each other."""
    limits = spec.limits
    for part in ("ttft_s", "itl_s", "tpot_s"):
        if limits.get(part, 0.0) > limits.get("e2e_s", math.inf):
            raise ConfigError(
                f"slo.{part}={limits[part]:g} is beyond slo.e2e_s={limits['e2e_s']:g}, which then "
                "limits it already: lower one or leave it out"
            )


def check_counted(metric: str | None, spec: SloSpec) -> None:
    """Raise `ConfigError` where `metric` counts good requests and no limit says which those are."""
    if metric in COUNTS_GOOD and not spec.limits:
        options = ", ".join(f"slo.{item.name}" for item in fields(spec))
        raise ConfigError(f"sweep.maximize={metric} counts good requests: set one of {options}")


def good(requests: Columns, spec: SloSpec) -> np.ndarray:
    """[requests] whether each has finished within every limit that is set, itself included.

    A request of one token has no gap and takes no time after its first token, as for the goodput of
    `vllm bench serve`.
    """
    within = requests["status"] == "finished"
    tokens = requests["output_tokens"]
    decode_s = requests["finish_s"] - requests["first_token_s"]
    taken_s = {
        "ttft_s": requests["first_token_s"] - requests["arrival_s"],
        "itl_s": np.where(tokens > 1, requests["itl_max_s"], 0.0),
        "tpot_s": np.where(tokens > 1, decode_s, 0.0) / np.maximum(tokens - 1, 1),
        "e2e_s": requests["finish_s"] - requests["arrival_s"],
    }
    for name, limit in spec.limits.items():
        within = within & (taken_s[name] <= limit)
    return within
