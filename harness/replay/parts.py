"""Where the error of the mean end-to-end latency comes from: queueing, prefill or decode.

Decode is from the first token to the last, on both sides.  The time to the first token is split in
two.  A client does not see when the server began with its request, so both sides are split by the
same rule: *prefill* is the line a + b * prompt_tokens, a and b at least 0, below which a tenth of
the requests lie (a quantile regression; Koenker and Bassett, 1978), the time to the first token of
those that found the server nearly free; *queueing* is what a request needs beyond it.  Where all
requests wait, the line holds some of that waiting; the simulation knows its own queue, so it says
how well the rule does (`queue_known_s`).  A server's own mean queue time replaces the rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.replay.compared import Side
from workloads.requests import FloatArray, IntArray

#: with fewer requests a tenth of them is no line
FEWEST = 20
#: more would not move the line
MOST = 2000
QUANTILE = 0.1


@dataclass(frozen=True)
class Part:
    """Mean seconds of a request in one part: queueing, prefill (or first token), decode."""

    name: str
    measured_s: float
    simulated_s: float

    @property
    def difference_s(self) -> float:
        """What it adds to the mean end-to-end latency of the simulation."""
        return self.simulated_s - self.measured_s


def error_parts(
    measured: Side,
    simulated: Side,
    simulated_queue_s: FloatArray,
    server_queue_s: float | None = None,
) -> tuple[list[Part], list[str]]:
    """The parts, whose differences sum to the error of the mean end-to-end latency, and notes.

    simulated_queue_s: [n] from arrival to the step that first computes a request.
    server_queue_s: the same as the server itself reports it, on average.
    """
    decode = Part("decode", float(measured.decode_s.mean()), float(simulated.decode_s.mean()))
    first = [float(side.ttft_s.mean()) for side in (measured, simulated)]
    known_s = float(simulated_queue_s.mean())
    if server_queue_s is not None:
        return [*_split(first, [server_queue_s, known_s]), decode], [
            "queueing is what server and simulation say of themselves"
        ]
    if len(measured.ttft_s) < FEWEST:
        return [Part("first token", *first), decode], [
            f"fewer than {FEWEST} requests: the time to the first token is not split"
        ]
    waits = [
        float((side.ttft_s - unloaded_s(side.prompt_tokens, side.ttft_s)).mean())
        for side in (measured, simulated)
    ]
    notes = []
    if abs(waits[1] - known_s) > 0.2 * first[1]:
        notes.append(
            f"the rule gives the simulation {waits[1]:.3g} s of queueing where it has "
            f"{known_s:.3g} s: hardly a request found the server free, so queueing and prefill are "
            "not told apart; metrics=FILE of the server would"
        )
    return [*_split(first, waits), decode], notes


def _split(first: list[float], waits: list[float]) -> list[Part]:
    return [
        Part("queueing", *waits),
        Part("prefill", *(total - wait for total, wait in zip(first, waits, strict=True))),
    ]


def unloaded_s(prompt_tokens: IntArray, ttft_s: FloatArray) -> FloatArray:
    """[n] seconds: the line of the fastest tenth at each prompt, at most the time itself."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, eye, hstack

    some = np.unique(np.linspace(0, len(ttft_s) - 1, min(len(ttft_s), MOST)).astype(np.int64))
    n = len(some)
    tokens = prompt_tokens[some] / max(1, int(prompt_tokens.max()))
    line = csr_matrix(np.column_stack([np.ones(n), tokens]))
    # Above the line costs QUANTILE, below it the rest, so that share of the points lies below.
    costs = np.concatenate([[0.0, 0.0], np.full(n, QUANTILE), np.full(n, 1 - QUANTILE)])
    found = linprog(
        costs,
        A_eq=hstack([line, eye(n), -eye(n)]).tocsr(),
        b_eq=ttft_s[some],
        bounds=(0, None),
        method="highs",
    )
    a, b = found.x[:2]
    return np.minimum(a + b * prompt_tokens / max(1, int(prompt_tokens.max())), ttft_s)
