"""When requests reach the queue: at recorded or drawn times, or as others end.

A request that comes `after` another arrives its think time after that one's end.  In a closed loop
a conversation (a root and all that comes after it) is released when another one has ended whole.
Both happen only where a sequence ends, so never inside a stretch of steps run in one go.

A request *arrives* when its client sends it, and reaches the queue as much later as the front end
takes.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workloads.requests import RequestTable

NO_MORE = float("inf")


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Seconds of a request before the scheduler sees it, of a token before the client does.

    `plans_ahead` says that a step is planned when the one before it starts, and not when that ends.
    """

    request_s: float = 0.0
    response_s: float = 0.0
    plans_ahead: bool = False


class Arrivals:
    """Hands out request indices in order of arrival; those at the same time by index.

    All times are those at which the scheduler sees them, `request_s` after they were sent; only the
    arrival times handed out with them are the clients'.
    """

    def __init__(self, requests: RequestTable, request_s: float = 0.0) -> None:
        self._request_s, self._sent_s = request_s, requests.arrival_s.copy()
        roots = requests.roots
        order = roots[np.argsort(requests.arrival_s[roots], kind="stable")]
        self._closed = requests.concurrency is not None
        self._held: list[int] = []  # of a closed loop: roots not released yet, the next one last
        self._later: list[tuple[float, int]] = []  # a heap of (time, index), known by an end
        if self._closed:
            self._held = roots[::-1].tolist()
            self._root_of = requests.root_of()
            self._left = np.bincount(self._root_of, minlength=len(requests))
            order = order[:0]
            for _ in range(min(requests.concurrency, len(self._held))):
                self._send(self._held.pop(), 0.0)
        self._order = order.tolist()
        self._array = requests.arrival_s[order] + request_s
        self._times = self._array.tolist()
        self._next = 0
        self._dependants: dict[int, list[tuple[float, int]]] = {}
        if requests.after is not None:
            for i in np.flatnonzero(requests.after >= 0).tolist():
                dependant = (float(requests.think_s[i]), i)
                self._dependants.setdefault(int(requests.after[i]), []).append(dependant)

    def due(self, now_s: float) -> list[tuple[int, float]]:
        """Return (index, arrival time) of those that the scheduler sees by now, each once."""
        stop = bisect_right(self._times, now_s, lo=self._next)
        arrived = [(self._times[k], self._order[k]) for k in range(self._next, stop)]
        self._next = stop
        if self._later and self._later[0][0] <= now_s:
            while self._later and self._later[0][0] <= now_s:
                arrived.append(heapq.heappop(self._later))
            arrived.sort()
        return [(index, float(self._sent_s[index])) for _, index in arrived]

    def next_s(self) -> float:
        """Return when the scheduler sees the next one, infinity if none is known to."""
        fixed = self._times[self._next] if self._next < len(self._times) else NO_MORE
        return min(fixed, self._later[0][0]) if self._later else fixed

    def unseen_by(self, times_s: np.ndarray) -> np.ndarray:
        """Count those not handed out yet that it will have seen at each of these times."""
        unseen = np.zeros(len(times_s), dtype=np.int64)
        if self._next < len(self._times):
            unseen = np.searchsorted(self._array, times_s, side="right") - self._next
        if self._later and self._later[0][0] <= times_s[-1]:
            later = np.sort(np.array([time_s for time_s, _ in self._later]))
            unseen = unseen + np.searchsorted(later, times_s, side="right")
        return unseen

    def ended(self, now_s: float, requests: Iterable[int]) -> None:
        """Note that clients saw these requests end: what comes after them gets its arrival time."""
        for index in requests:
            for think_s, dependant in self._dependants.get(index, ()):
                self._send(dependant, now_s + think_s)
            if self._closed:
                root = self._root_of[index]
                self._left[root] -= 1
                if not self._left[root] and self._held:
                    self._send(self._held.pop(), now_s)

    def _send(self, index: int, sent_s: float) -> None:
        """Note when a request is sent that no table could tell."""
        self._sent_s[index] = sent_s
        heapq.heappush(self._later, (sent_s + self._request_s, index))
