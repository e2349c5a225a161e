"""When each output token of a request came: what a streaming client would have seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.engine.group import Group
from harness.engine.observer import StepView
from workloads.requests import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]


class TokenTimes:
    """An observer of one variant that keeps the time of every token of every request.

    `groups` are the requests that have run, by index.  Times are those of the steps' ends, which is
    when tokens are sampled: a client sees each as much later as the front end takes.

    A view is shown before its step samples, so what a step gave is known at the next view: the
    difference of what was generated, whatever the policy, the sampling or a preemption did.
    """

    def __init__(self, requests: int) -> None:
        self._generated: IntArray = np.zeros(requests, dtype=np.int64)
        self.groups: dict[int, Group] = {}
        self._last: tuple[FloatArray, dict[int, Group]] | None = None
        self._pieces: list[tuple[IntArray, FloatArray]] = []
        self._chunks: list[BoolArray] = []  # of each of these, whether it is its step's first

    def on_step(self, step: StepView) -> None:
        """Count what the step before has given, and remember this one."""
        running = step.running
        now = self._generated.copy()
        now[running.owner] = running.outputs - running.left
        self._count(now, running.groups)
        self.groups.update(running.groups)
        self._last = (step.ends_s, dict(running.groups))

    def of_requests(self) -> list[FloatArray]:
        """Times of the tokens of each request, [output_tokens] seconds; call it after the run."""
        return self._by_request(slice(None))

    def gaps_of_requests(self) -> list[FloatArray]:
        """Gaps between the chunks of each request, seconds; call it after the run.

        Tokens that one step gives come in one chunk.
        """
        self._finish()
        chunks = np.concatenate([np.empty(0, bool), *self._chunks])
        return [np.diff(times_s) for times_s in self._by_request(chunks)]

    def _by_request(self, chosen: slice | BoolArray) -> list[FloatArray]:
        self._finish()
        owner = np.concatenate([np.empty(0, int), *(owners for owners, _ in self._pieces)])[chosen]
        times_s = np.concatenate([np.empty(0), *(times for _, times in self._pieces)])[chosen]
        order = np.argsort(owner, kind="stable")
        cuts = np.searchsorted(owner[order], np.arange(1, len(self._generated)))
        return np.split(times_s[order], cuts)

    def _finish(self) -> None:
        if self._last is not None:
            self._count(self._generated.copy(), {})
            self._last = None

    def _count(self, now: IntArray, running: dict[int, Group]) -> None:
        """Give the tokens that are new in `now` the times of the last view."""
        if self._last is None:
            return
        ends_s, before = self._last
        for index in before.keys() - running.keys():  # ended or preempted: it says so itself
            now[index] = before[index].generated
        indices = np.fromiter(before, dtype=np.int64, count=len(before))
        gained = now[indices] - self._generated[indices]
        if len(ends_s) > 1:  # steps run in one go: a token each
            indices = indices[gained > 0]
            self._pieces.append((np.tile(indices, len(ends_s)), np.repeat(ends_s, len(indices))))
            self._chunks.append(np.ones(len(indices) * len(ends_s), dtype=bool))
        else:
            owners = np.repeat(indices, gained)
            self._pieces.append((owners, np.full(len(owners), ends_s[0])))
            first = np.ones(len(owners), dtype=bool)
            first[1:] = owners[1:] != owners[:-1]
            self._chunks.append(first)
        self._generated = now
