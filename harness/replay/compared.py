"""Measured beside simulated: the same requests, the same definitions, the error in percent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.replay.measured import MeasuredRun
from harness.replay.simulate import SimulatedRun
from workloads.requests import FloatArray, IntArray

STATISTICS = ("mean", "p50", "p90", "p99")
LATENCIES = ("ttft", "tpot", "itl", "e2e")


@dataclass(frozen=True)
class Compared:
    """One number on both sides, in `unit`; `error` is simulated over measured - 1, or None."""

    quantity: str
    statistic: str
    unit: str
    measured: float | None
    simulated: float | None

    @property
    def error(self) -> float | None:
        if self.measured is None or self.simulated is None or self.measured <= 0:
            return None
        return self.simulated / self.measured - 1


@dataclass(frozen=True)
class Side:
    """One side of a comparison, whichever it is: columns of length n, in one order for both.

    arrival_s: None where unknown.  span_s: from the first arrival to the last end.
    """

    arrival_s: FloatArray | None
    prompt_tokens: IntArray
    output_tokens: IntArray
    ttft_s: FloatArray
    e2e_s: FloatArray
    itls_s: list[FloatArray] | None
    span_s: float | None

    @property
    def decode_s(self) -> FloatArray:
        """[n] seconds from the first token to the last."""
        return self.e2e_s - self.ttft_s

    def values(self, latency: str) -> FloatArray | None:
        """The samples of a latency in seconds: [n] for ttft and e2e; None where there are none.

        tpot: [requests with more than one output token], a token after the first.  itl: all gaps
        between chunks of all requests.
        """
        if latency == "ttft":
            return self.ttft_s
        if latency == "e2e":
            return self.e2e_s
        if latency == "tpot":
            several = self.output_tokens > 1
            return self.decode_s[several] / (self.output_tokens[several] - 1)
        return None if self.itls_s is None else np.concatenate([np.empty(0), *self.itls_s])


def sides(measured: MeasuredRun, simulated: SimulatedRun) -> tuple[Side, Side]:
    """Both sides, over the requests that were simulated."""
    kept = measured.take(simulated.rows)
    left = Side(
        kept.arrival_s,
        kept.prompt_tokens,
        kept.output_tokens,
        kept.ttft_s,
        kept.e2e_s,
        kept.itls_s,
        kept.span_s,
    )
    right = Side(
        simulated.arrival_s,
        kept.prompt_tokens,
        kept.output_tokens,
        simulated.ttft_s,
        simulated.e2e_s,
        simulated.itls_s,
        simulated.span_s,
    )
    return left, right


def part_of(side: Side, rows: IntArray) -> Side:
    """Some of the requests; the span becomes theirs."""
    arrival_s = None if side.arrival_s is None else side.arrival_s[rows]
    e2e_s = side.e2e_s[rows]
    span_s = None if arrival_s is None else float((arrival_s + e2e_s).max() - arrival_s.min())
    return Side(
        arrival_s,
        side.prompt_tokens[rows],
        side.output_tokens[rows],
        side.ttft_s[rows],
        e2e_s,
        None if side.itls_s is None else [side.itls_s[i] for i in rows.tolist()],
        span_s,
    )


def compare(measured: Side, simulated: Side) -> list[Compared]:
    """Every number that both sides can have, latencies first."""
    return [*_latencies(measured, simulated), *_throughput(measured, simulated)]


def request_errors(measured: Side, simulated: Side) -> dict[str, float]:
    """Mean over the requests of |simulated / measured - 1|, by latency, of measured times above 0.

    Errors of requests that cancel in a mean do not cancel here.
    """
    found = {}
    for latency in ("ttft", "e2e"):
        true, ours = measured.values(latency), simulated.values(latency)
        at = true > 0
        if at.any():
            found[latency] = float(np.abs(ours[at] / true[at] - 1).mean())
    return found


def _latencies(measured: Side, simulated: Side) -> Iterator[Compared]:
    for latency in LATENCIES:
        left, right = _statistics(measured, latency), _statistics(simulated, latency)
        if left is None or right is None:
            continue
        for name in STATISTICS:
            yield Compared(latency, name, "s", left[name], right[name])


def _statistics(side: Side, latency: str) -> dict[str, float] | None:
    values = side.values(latency)
    if values is None or not len(values):
        return None
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return {"mean": float(values.mean()), "p50": p50, "p90": p90, "p99": p99}


def _throughput(measured: Side, simulated: Side) -> Iterator[Compared]:
    n = len(measured.ttft_s)
    outputs = int(measured.output_tokens.sum())
    prompts = int(measured.prompt_tokens.sum())
    for name, amount in (
        ("requests", n),
        ("output tokens", outputs),
        ("all tokens", prompts + outputs),
    ):
        left, right = (
            amount / side.span_s if side.span_s else None for side in (measured, simulated)
        )
        yield Compared(name, "rate", "1/s", left, right)
