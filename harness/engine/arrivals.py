"""When requests reach the queue: at recorded or drawn times, or as others end (closed loop)."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from workloads.requests import RequestTable

NO_MORE = float("inf")


class Arrivals:
    """Hands out request indices in order of arrival."""

    def __init__(self, requests: RequestTable) -> None:
        self._times = requests.arrival_s.tolist()
        self._array = requests.arrival_s
        self._next = 0
        self._closed = requests.concurrency
        if self._closed is not None:
            self._times = [0.0] * min(self._closed, len(requests))
        self._total = len(requests)

    def due(self, now_s: float) -> list[tuple[int, float]]:
        """Return (index, arrival time) of those that have arrived by now, each once."""
        stop = bisect_right(self._times, now_s, lo=self._next)
        arrived = [(i, self._times[i]) for i in range(self._next, stop)]
        self._next = stop
        return arrived

    def next_s(self) -> float:
        """Return when the next one arrives, infinity if none is known to."""
        return self._times[self._next] if self._next < len(self._times) else NO_MORE

    def unseen_by(self, times_s: np.ndarray) -> np.ndarray:
        """Count those not handed out yet that will have arrived at each of these times."""
        if self._next >= len(self._times) or self._closed is not None:
            return np.zeros(len(times_s), dtype=np.int64)
        return np.searchsorted(self._array, times_s, side="right") - self._next

    def ended(self, now_s: float, requests: int) -> None:
        """Note that requests ended: in a closed loop as many others take their places."""
        if self._closed is not None:
            more = min(requests, self._total - len(self._times))
            self._times += [now_s] * more
