"""When requests reach the queue: at recorded or drawn times, or as others end.

A request that comes `after` another arrives its think time after that one's end.  In a closed loop
a conversation (a root and all that comes after it) is released when another one has ended whole.
Both happen only where a sequence ends, so never inside a stretch of steps run in one go.

A request *arrives* when its client sends it, and reaches the queue as much later as the front end
takes.
"""

from __future__ import annotations

import heapq
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
        self._held = roots[:0]  # of a closed loop: roots not released yet
        self._later: list[tuple[float, int]] = []  # a heap of (time, index), known by an end
        if self._closed:
            self._root_of = requests.root_of()
            self._left = np.bincount(self._root_of, minlength=len(requests))
            order, self._held = order[:0], roots
            for _ in range(min(requests.concurrency, len(roots))):
                self._release(0.0)
        self._order, self._times = order, requests.arrival_s[order] + request_s
        self._take_to(0)
        self._think_s, self._dependants = requests.think_s, roots[:0]
        if requests.after is not None:
            # Those after request i are the dependants from _first_of[i] to _first_of[i + 1].
            dependants = np.flatnonzero(requests.after >= 0)
            after = requests.after[dependants]
            self._dependants = dependants[np.argsort(after, kind="stable")]
            self._first_of = np.searchsorted(np.sort(after), np.arange(len(requests) + 1))

    def due(self, now_s: float) -> list[tuple[int, float]]:
        """Return (index, arrival time) of those that the scheduler sees by now, each once."""
        due = slice(self._next, self._next)
        if self._next_s <= now_s:
            due = slice(self._next, int(np.searchsorted(self._times, now_s, side="right")))
            self._take_to(due.stop)
        order = self._order[due].tolist()
        if self._later and self._later[0][0] <= now_s:
            arrived = list(zip(self._times[due].tolist(), order, strict=True))
            while self._later and self._later[0][0] <= now_s:
                arrived.append(heapq.heappop(self._later))
            order = [index for _, index in sorted(arrived)]
        return list(zip(order, self._sent_s[order].tolist(), strict=True)) if order else []

    def next_s(self) -> float:
        """Return when the scheduler sees the next one, infinity if none is known to."""
        return min(self._next_s, self._later[0][0]) if self._later else self._next_s

    def unseen_by(self, times_s: np.ndarray) -> np.ndarray:
        """Count those not handed out yet that it will have seen at each of these times."""
        unseen = np.zeros(len(times_s), dtype=np.int64)
        if self._next < len(self._times):
            unseen = np.searchsorted(self._times, times_s, side="right") - self._next
        if self._later and self._later[0][0] <= times_s[-1]:
            later = np.sort(np.array([time_s for time_s, _ in self._later]))
            unseen = unseen + np.searchsorted(later, times_s, side="right")
        return unseen

    def ended(self, now_s: float, requests: Iterable[int]) -> None:
        """Note that clients saw these requests end: what comes after them gets its arrival time."""
        for index in requests:
            if len(self._dependants):
                first, stop = self._first_of[index], self._first_of[index + 1]
                for dependant in self._dependants[first:stop].tolist():
                    self._send(dependant, now_s + float(self._think_s[dependant]))
            if self._closed:
                root = self._root_of[index]
                self._left[root] -= 1
                if not self._left[root] and len(self._held):
                    self._release(now_s)

    def _take_to(self, place: int) -> None:
        """Let the next one, of those whose time was known beforehand, be that at this place."""
        self._next = place
        self._next_s = float(self._times[place]) if place < len(self._times) else NO_MORE

    def _release(self, sent_s: float) -> None:
        """Send the next root of a closed loop."""
        self._send(int(self._held[0]), sent_s)
        self._held = self._held[1:]

    def _send(self, index: int, sent_s: float) -> None:
        """Note when a request is sent that no table could tell."""
        self._sent_s[index] = sent_s
        heapq.heappush(self._later, (sent_s + self._request_s, index))
