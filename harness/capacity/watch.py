"""What is looked at while a run goes on: the queue, which may stop it, and the requests."""

from __future__ import annotations

import math

import numpy as np

from harness.capacity.stationary import ENDED, GOING_ON, Bar, trend, warm_up
from harness.results.runlog import REQUEST_COLUMNS, Columns
from harness.results.summary import normalized_latency_s, ttft_s
from workloads.requests import RequestTable

#: the share of the arrivals before which no run is stopped, and between two looks at the queue
FIRST_LOOK, NEXT_LOOK = 0.25, 0.05
STEPS = ("start_s", "time_s", "waiting")


class Diverged(BaseException):
    """Ends a run whose queue only grows.  No `Exception`, which whoever serves might catch."""


class Watch:
    """A consumer of a run's blocks (see `results.stream`) that stops it where its queue grows.

    The queue is the requests that have arrived and are not in the batch: a batch that fills up is
    no queue.
    """

    def __init__(self, requests: RequestTable, rate: float, stops: bool = True) -> None:
        """`rate` is that of `requests`, a second; infinity: all at once, which is never stopped."""
        self._rate = rate
        self._last_s = float(requests.arrival_s.max())
        looks = stops and not math.isinf(rate)
        self._next_look_s = FIRST_LOOK * self._last_s if looks else math.inf
        self._steps: list[Columns] = []
        self._requests: list[Columns] = []
        self.stopped = False

    def steps(self, block: Columns) -> None:
        """See `Consumer`; raises `Diverged`."""
        self._steps.append({name: block[name] for name in STEPS})
        now_s = float(block["time_s"][-1])
        if not self._next_look_s <= now_s < self._last_s:
            return
        self._next_look_s = now_s + NEXT_LOOK * self._last_s
        if self._grows(slice(now_s / 2, now_s), GOING_ON):
            self.stopped = True
            raise Diverged

    def requests(self, block: Columns) -> None:
        """See `Consumer`."""
        self._requests.append(block)

    def token_gaps(self, seconds: np.ndarray, counts: np.ndarray) -> None:
        """See `Consumer`."""

    def ended(self) -> Columns:
        """Return the columns of all requests that have ended, by index."""
        return {
            name: np.concatenate([np.empty(0, kind), *(block[name] for block in self._requests)])
            for name, kind in REQUEST_COLUMNS.items()
        }

    def diverges(self) -> bool:
        """Whether the queue of a run that has ended grew, over the second half of the arrivals."""
        if math.isinf(self._rate) or not self._last_s:
            return False
        return self._grows(slice(self._last_s / 2, self._last_s), ENDED)

    def _grows(self, of: slice, bar: Bar) -> bool:
        taken = {name: np.concatenate([b[name] for b in self._steps]) for name in STEPS}
        waiting = taken["waiting"].astype(np.float64)
        rising = trend(taken["start_s"], taken["time_s"], waiting, of)
        return rising.exceeds(bar, self._rate)


def counted(requests: Columns) -> slice:
    """Return which of a run's requests, by index, count: those that neither end of the run colours.

    Left out are the warm-up, by MSER-5 of the time to first token and of the latency per token,
    whichever is longer; and at the end as many as were in the system when the last one arrived,
    at most a quarter, for beside them nothing arrives any more.
    """
    n = len(requests["arrival_s"])
    first = max(warm_up(ttft_s(requests)), warm_up(normalized_latency_s(requests)))
    present = int((requests["finish_s"] > requests["arrival_s"].max(initial=0.0)).sum())
    return slice(first, n - min(present, n // 4))
