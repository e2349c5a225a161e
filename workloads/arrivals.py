"""When requests arrive: seconds from the first request, which is at 0 as in a trace.

The gaps are drawn once from a gamma law of mean 1 and then divided by the rate, so two rates see
the same pattern, stretched. Shape `burstiness`: 1 is a Poisson process, below 1 is burstier and
above 1 more regular (the convention of the vLLM serving benchmark); the gaps' coefficient of
variation is burstiness ** -0.5.
"""

from __future__ import annotations

import math

import numpy as np

from workloads.errors import WorkloadError, number, one_of, whole
from workloads.requests import FloatArray
from workloads.spec import WorkloadSpec

KINDS = ("auto", "trace", "poisson", "gamma", "all_at_once", "closed_loop")


def choose(spec: WorkloadSpec, timed: bool) -> str:
    """Resolve `spec.arrivals` to one of KINDS but auto, and check the numbers that it needs.

    `timed`: the requests come with recorded times. Raises WorkloadError.
    """
    kind = one_of("workload.arrivals", spec.arrivals, KINDS)
    rate = spec.rate
    if rate is not None:
        number("workload.rate", rate, above=0, infinite=True)  # inf: all at once
    number("workload.burstiness", spec.burstiness, above=0)
    if spec.concurrency is not None:
        whole("workload.concurrency", spec.concurrency, at_least=1)
        if kind not in ("auto", "closed_loop") or rate is not None:
            raise WorkloadError(
                "workload.concurrency is a closed loop: leave out workload.rate, and set "
                "workload.arrivals to auto or closed_loop"
            )
        return "closed_loop"
    if kind == "auto":
        if rate is None:
            return "trace" if timed else "all_at_once"
        return "all_at_once" if math.isinf(rate) else "gamma"
    if kind == "closed_loop":
        raise WorkloadError("workload.arrivals=closed_loop needs workload.concurrency=N, N >= 1")
    if kind == "trace" and not timed:
        raise WorkloadError("workload.arrivals=trace needs a trace that records arrival times")
    if kind in ("poisson", "gamma"):
        if rate is None:
            raise WorkloadError(f"workload.arrivals={kind} needs workload.rate in requests/s")
        if kind == "poisson" and spec.burstiness != 1:
            raise WorkloadError(
                f"workload.arrivals=poisson has burstiness 1, not {spec.burstiness:g}; "
                "set workload.arrivals=gamma"
            )
    if kind == "all_at_once" and rate is not None and not math.isinf(rate):
        raise WorkloadError(
            f"workload.arrivals=all_at_once has no rate; drop workload.rate={rate:g}"
        )
    return "all_at_once" if kind == "all_at_once" or rate == math.inf else kind


def arrival_times(
    kind: str, n: int, spec: WorkloadSpec, rng: np.random.Generator, recorded_s: FloatArray
) -> FloatArray:
    """Arrival times in seconds, float64[n], sorted, from 0. `kind` comes from `choose`.

    trace with a rate keeps the recorded pattern and scales it to that mean rate.
    """
    if kind in ("poisson", "gamma"):
        gaps = rng.standard_gamma(spec.burstiness, n) / spec.burstiness
        gaps[:1] = 0.0
        return np.cumsum(gaps) / spec.rate
    if kind == "trace":
        if spec.rate is None:
            return recorded_s
        span = float(recorded_s[-1])
        if span <= 0:
            raise WorkloadError("workload.rate cannot scale a trace that arrives all at once")
        return recorded_s * ((n - 1) / (spec.rate * span))
    return np.zeros(n)
