"""When the requests of a measured file arrived: as it says, or as the user states."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from harness.replay.errors import ReplayError
from harness.replay.records import Records
from workloads.requests import FloatArray

KINDS = ("file", "drawn", "all_at_once", "closed_loop")
#: beyond this share the drawn arrivals are not those of the run that the file tells of
DRAWN_TOLERANCE = 0.02


@dataclass(frozen=True)
class ArrivalSpec:
    """What the user states; None stands for what the file says.

    kind: one of KINDS, None for the file's own start times.  rate: requests/s and burstiness, of
    drawn arrivals.  seed: of the draw.  concurrency: of a closed loop.
    """

    kind: str | None = None
    rate: float | None = None
    burstiness: float | None = None
    seed: int = 0
    concurrency: int | None = None


@dataclass(frozen=True)
class ArrivalTimes:
    """`arrival_s` float64[n], in the file's order; None where the simulation decides them."""

    kind: str
    arrival_s: FloatArray | None
    concurrency: int | None = None
    notes: list[str] = field(default_factory=list)


def arrival_times(where: str, records: Records, spec: ArrivalSpec) -> ArrivalTimes:
    """Find when each request arrived, failed ones included.  Raises ReplayError, one line."""
    kind = spec.kind or "file"
    _check_stated(spec, kind)
    if kind == "file":
        return _of_file(where, records)
    if kind == "drawn":
        return _drawn(where, records, spec)
    if kind == "all_at_once":
        notes = ["all requests arrive at once", *_ends_elsewhere(np.zeros(len(records)), records)]
        return ArrivalTimes(kind, np.zeros(len(records)), None, notes)
    concurrency = records.concurrency if spec.concurrency is None else spec.concurrency
    if concurrency is None:
        raise ReplayError(
            f"{where}: does not say how many requests were in flight; state concurrency=N"
        )
    if concurrency < 1:
        raise ReplayError(f"concurrency must be at least 1, got {concurrency}")
    note = f"closed loop: {concurrency} requests in flight, the next comes where one ends"
    return ArrivalTimes(kind, records.start_s, concurrency, [note])


def _check_stated(spec: ArrivalSpec, kind: str) -> None:
    if kind not in KINDS:
        raise ReplayError(f"arrivals must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, value, of in (
        ("rate", spec.rate, "drawn"),
        ("burstiness", spec.burstiness, "drawn"),
        ("concurrency", spec.concurrency, "closed_loop"),
    ):
        if value is not None and kind != of:
            raise ReplayError(f"{name}={value} is an option of arrivals={of}, not of {kind}")


def _of_file(where: str, records: Records) -> ArrivalTimes:
    start_s = records.start_s
    if start_s is None:
        raise ReplayError(f"{where}: does not say when requests arrived; {_allowed(records)}")
    lost = np.flatnonzero(~np.isfinite(start_s) & ~records.failed)
    if len(lost):
        raise ReplayError(f"{where}: request {lost[0]} has no start time")
    notes = []
    late = int((np.diff(start_s[~records.failed]) < 0).sum())
    if late:
        notes.append(
            f"{late} requests start before the one listed above them: put in order of their start"
        )
    if records.concurrency is not None:
        notes.append(
            f"closed loop of {records.concurrency} requests in flight: they arrive when the file "
            "says; arrivals=closed_loop lets each wait for the end of a simulated one"
        )
    return ArrivalTimes("file", start_s, None, notes)


def _drawn(where: str, records: Records, spec: ArrivalSpec) -> ArrivalTimes:
    """As vLLM's client drew them until mid-2025, in `benchmark_serving.py`.

    After `numpy.random.seed(seed)` each gap is gamma(burstiness, 1 / (rate * burstiness)), and the
    first request comes at 0.
    """
    rate = spec.rate if spec.rate is not None else records.rate
    burstiness = spec.burstiness if spec.burstiness is not None else (records.burstiness or 1.0)
    if rate is None:
        raise ReplayError(f"{where}: does not say its request rate; state rate=N in requests/s")
    if not rate > 0 or not 0 < burstiness < math.inf:
        raise ReplayError(f"rate and burstiness must be positive, got {rate:g} and {burstiness:g}")
    if not 0 <= spec.seed < 2**32:
        raise ReplayError(f"arrivals_seed must be from 0 to 2**32 - 1, got {spec.seed}")
    n = len(records)
    if math.isinf(rate):
        notes = ["rate inf: all requests arrive at once", *_ends_elsewhere(np.zeros(n), records)]
        return ArrivalTimes("drawn", np.zeros(n), None, notes)
    # The old generator: the client's draws are its, number for number.
    draws = np.random.RandomState(spec.seed)
    gaps = draws.gamma(burstiness, 1 / (rate * burstiness), n - 1)
    arrival_s = np.concatenate([[0.0], np.cumsum(gaps)])
    notes = [f"arrivals are drawn: rate {rate:g}/s, burstiness {burstiness:g}, seed {spec.seed}"]
    return ArrivalTimes("drawn", arrival_s, None, [*notes, *_ends_elsewhere(arrival_s, records)])


def _ends_elsewhere(arrival_s: FloatArray, records: Records) -> list[str]:
    """Return a note if the last request would not end when the client's run did."""
    if records.duration_s is None:
        return []
    end_s = float((arrival_s + records.e2e_s)[~records.failed].max())
    if abs(end_s / records.duration_s - 1) <= DRAWN_TOLERANCE:
        return []
    return [
        f"with them the last request ends at {end_s:.1f} s, but the client's run took "
        f"{records.duration_s:.1f} s: other arrivals, another seed or another client's draw"
    ]


def _allowed(records: Records) -> str:
    """What may be stated instead of start times, the likeliest first."""
    rate = "" if records.rate is not None else " rate=N"
    count = "" if records.concurrency is not None else " concurrency=N"
    ways = [
        f"arrivals=drawn{rate} (as vLLM's client draws them, arrivals_seed=0)",
        "arrivals=all_at_once",
        f"arrivals=closed_loop{count}",
    ]
    if records.concurrency is not None:
        ways.reverse()
    return f"state one of {', '.join(ways)}"
